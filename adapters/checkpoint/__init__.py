"""Checkpoints on disk, read without loading them: which files, whether they are whole, and what is wrong."""
