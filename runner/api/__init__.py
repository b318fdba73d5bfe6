"""Functions behind the verbs of the command line, which print nothing; `genrun.api` lists those for users."""

import os


class DefaultRuns(os.PathLike[str]):
    """The folder of runs where none is named, found out whenever it is asked for: GENRUN_RUNS, the user's, or `runs`."""

    def __fspath__(self) -> str:
        from genrun.runner.api.config import default_runs

        return default_runs()

    def __repr__(self) -> str:
        return "runs"


RUNS = DefaultRuns()
"""The folder of runs, unless told otherwise."""
