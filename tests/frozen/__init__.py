"""What may never change: ids of items, the format of a run folder, and the shapes of `--json`, as 0.1.0 wrote them."""
