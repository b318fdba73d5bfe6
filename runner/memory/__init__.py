"""The memory that a rank will need, from a checkpoint's headers: nothing is loaded, torch is not imported."""
