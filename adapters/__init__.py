"""The outside world: diffusers pipelines, ranks, media files, scorers, the demo models."""
