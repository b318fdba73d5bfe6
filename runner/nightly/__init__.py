"""Run a job for a night: due -> submit -> score -> compare -> report -> retention -> notify; see `run`."""
