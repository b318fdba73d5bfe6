"""Shows a report at an address of this machine, with ranges."""
