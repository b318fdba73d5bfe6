"""How much memory a rank will need, from what a checkpoint says of itself: nothing is loaded, torch is not imported."""
