"""Functions behind the verbs of the command line, which print nothing; `genrun.api` lists those for users."""

RUNS = "runs"
"""The folder of runs, unless told otherwise."""
