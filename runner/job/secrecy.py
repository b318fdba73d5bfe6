"""Where a secret of the environment may stand in a job: where only a shell or a program reads it, and nothing is stored."""

from __future__ import annotations

from collections.abc import Mapping

from genrun.runner.job.environ import looks_secret
from genrun.runner.job.matrix import AXES
from genrun.runner.job.problems import Problem
from genrun.runner.job.tree import Path, Value, dotted

WITH_ITEMS = (*AXES, "matrix", "name")
"""Sections that are stored with every item."""

MIN_LENGTH = 4
"""Of a secret that is looked for in other texts: a shorter one would be found in innocent words."""


def secret_problems(root: Value) -> list[Problem]:
    """Name values made from a secret of the environment that would be stored, printed, or handed to a queue."""
    return [
        Problem(value.origin, dotted(path), _refusal(value.source, path))
        for path, value in root.leaves()
        if value.source is not None and not _may_hold(path)
    ]


def hidden(text: str, environ: Mapping[str, str]) -> str:
    """Return a text with the values of secret variables replaced by their names."""
    found = {value: name for name, value in environ.items() if looks_secret(name) and len(value) >= MIN_LENGTH}
    for value in sorted(found, key=len, reverse=True):
        text = text.replace(value, f"${{{found[value]}}}")
    return text


def _may_hold(path: Path) -> bool:
    """Whether a value goes to a shell or a program alone: stored as `${NAME}`, and filled in only there."""
    return path[:2] == ("launch", "setup") or (path[:3] == ("nightly", "notify", "command") and path[3:] != (0,))


def _refusal(source: str, path: Path) -> str:
    looks = f"{source} looks like a secret."
    if path[0] in WITH_ITEMS:
        remedy = "Items are stored: use a variable whose name does not end in TOKEN, KEY, SECRET or PASSWORD"
        return f"{looks} {remedy}."
    if path[0] == "launch":
        # Of an option as of any other key: a batch script is a file that others can read.
        return "made from a secret, and batch scripts are stored. Export it in launch.setup."
    return f"{looks} It would be stored with the run: use another variable, or read it in launch.setup."
