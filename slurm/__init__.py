"""Slurm: what genrun knows of its commands, states and scripts; nothing here knows what a run folder is."""
