"""Slurm: its launcher, the batch scripts, and the questions to its queue and its accounting."""
