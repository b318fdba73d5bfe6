"""What the verbs of the command line do, as functions that print nothing; `genrun.api` lists those for users."""

RUNS = "runs"
"""The folder of runs, unless told otherwise."""
