"""Caches of what a diffusion transformer's blocks computed before, one file each."""
