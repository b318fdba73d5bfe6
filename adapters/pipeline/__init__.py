"""A diffusers pipeline: what it can make, how it is loaded and kept in memory, and the pictures that it returns."""
