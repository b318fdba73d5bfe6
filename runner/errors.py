"""Every error genrun raises on purpose, each with the exit code of the command that meets it.

GenrunError
    UsageError        2  a command line that cannot be meant
    JobFileError      2  a job file with problems, all of them at once (runner/job/errors.py)
    MixError          2  a changed job that would mix into an old run
    RunError          1  items or the run as a whole failed
        StoreError    1  a run folder that cannot be read or written
            DamagedFileError  1  a file that does not hold what it should
            UnreadableError   1  a file that this user may not read, or that a disk does not give
        LaunchError   1  workers that could not be started, or died
            RefusedError  1  a queue that does not take a job as it is
    IncompleteError   3  a run that has not come to its end
        StoppedError  3  one that was told to stop
"""

from __future__ import annotations

from typing import ClassVar

MAX_LINE = 2_000
"""Characters of one problem: what a message repeats may be a file in itself."""


def cut(text: str, length: int = MAX_LINE) -> str:
    """Return a text, shortened in its middle when it is longer than `length`."""
    half = length // 2
    return text if len(text) <= length else f"{text[:half]}[...]{text[-half:]}"


class GenrunError(Exception):
    """An error that genrun raises on purpose, with a message for the user and a remedy.

    Attributes:
        exit_code: the exit status of the command.
        message: what failed, where, and why.
        remedy: the next command or change, or "".
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(f"{message}\n  {remedy}" if remedy else message)
        self.message = message
        self.remedy = remedy


class UsageError(GenrunError):
    """A command line that cannot be meant, such as the name of a run that is not there."""

    exit_code = 2


class MixError(GenrunError):
    """A changed job that would mix its items into an old run."""

    exit_code = 2


class RunError(GenrunError):
    """Items, or the run as a whole, failed."""


class StoreError(RunError):
    """A run folder that cannot be read or written."""


class DamagedFileError(StoreError):
    """A file of a run that is not there, or does not hold what genrun wrote: it is made again where that is possible."""


class UnreadableError(StoreError):
    """A file of a run that may not be read: its content is unknown, so it must not be replaced."""


class LaunchError(RunError):
    """Workers that could not be started, or died."""


class SubmissionRefusedError(LaunchError):
    """A queue that does not take a job as it is.

    Attributes:
        field: the key of the job file that is to blame, such as "launch.partition".
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.reason = message


class IncompleteError(GenrunError):
    """A run that has not come to its end."""

    exit_code = 3


class StoppedError(IncompleteError):
    """A run whose following was stopped, by Ctrl-C or a signal."""
