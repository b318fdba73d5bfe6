"""A worker process: taking items from a run folder, making them, and making them again."""
