"""Demo models: a synthetic world, two small stock pipelines trained on it, and a checker of what they show."""
