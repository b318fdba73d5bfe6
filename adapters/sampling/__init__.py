"""Sampling with a solver: `parallelize` for a diffusers user; generate, decode and encode for a worker."""
