"""Ranks that work together: how they are arranged, how long a batch will take on them, and how groups join."""
