"""Problems of a job file: what is wrong, where it is written, and the error that carries them all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from genrun.runner.errors import GenrunError, cut

MAX_SHOWN = 100
"""Problems that a message lists: nobody mends more at once."""


@dataclass(frozen=True, order=True)
class Origin:
    """A place: where a value came from.

    Attributes:
        file: a file as the user named it, or the text of a `--set` option, or "default".
        line: 1-based line, or 0 where lines mean nothing.
        column: 1-based column, or 0.
        of_user: True for a user's default, which is for jobs of every kind: one that does nothing for a job is not wrong.
    """

    file: str
    line: int = 0
    column: int = 0
    of_user: bool = False

    @property
    def folder(self) -> Path:
        """The folder that a relative file name there is relative to: the file's, else the current one."""
        return Path(self.file).parent if self.line else Path()

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, order=True)
class JobProblem:
    """A value that is wrong, and why.

    Attributes:
        origin: where.
        path: the dotted path of the value, or "" for the document as a whole.
        message: what is wrong, what is wanted, and the remedy.
        fails_items: the worker refuses the items of such a cell by name before it samples them, so that other cells can
            be made.
    """

    origin: Origin
    path: str
    message: str
    fails_items: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        return f"{self.origin}: {self.path}: {self.message}" if self.path else f"{self.origin}: {self.message}"


class JobFileError(GenrunError):
    """A job file with problems: all of them, sorted by place.

    Attributes:
        problems: what is wrong, and where; at least one.
    """

    exit_code = 2

    def __init__(self, problems: Sequence[JobProblem]) -> None:
        lines = [cut(str(problem)) for problem in problems[:MAX_SHOWN]]
        if len(problems) > MAX_SHOWN:
            lines.append(f"and {len(problems) - MAX_SHOWN:,} more")
        super().__init__("\n".join(lines))
        self.problems = tuple(problems)


def raise_all(problems: Iterable[JobProblem]) -> None:
    """Raise JobFileError with the distinct `problems` in the order of their places; do nothing if there are none."""
    distinct = sorted(set(problems))
    if distinct:
        raise JobFileError(distinct)


def refuse(origin: Origin, message: str, path: str = "") -> NoReturn:
    """Raise JobFileError with one problem."""
    raise JobFileError([JobProblem(origin, path, message)])
