"""Scoring a run: what is measured on what, what is kept, and who measures which part."""
