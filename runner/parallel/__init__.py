"""Ranks that work together: the mesh they form, and the teams in which they make items."""
