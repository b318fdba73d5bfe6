"""Submitting a job: find the run it belongs to, order its missing items, start workers, follow them to the end."""
