"""Training and evaluation of the demo models; sampling needs none of it."""
