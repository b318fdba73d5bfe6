"""Finding a run and an item by what a user calls them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.api import RUNS
from genrun.runner.errors import UsageError
from genrun.runner.store import runs as store
from genrun.runner.store.folder import RunFolder

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem

AnyRun = str | os.PathLike[str] | RunFolder | None
"""A run folder, a job's name (its latest run), a `Run`, or None: the run submitted last."""


def run_folder(run: AnyRun = None, runs: str | os.PathLike[str] = RUNS) -> RunFolder:
    """Open a run.

    Args:
        run: a run folder, a job's name (its latest run), or None (the run submitted last).
        runs: the folder of runs, for names.

    Raises:
        UsageError: there is no such run.
        StoreError: the folder is not a run.
    """
    if isinstance(run, RunFolder):
        return run
    if not isinstance(run, str | os.PathLike | None):
        raise TypeError(
            f"a run is its folder, its job's name, a Run, or None for the last one; got {type(run).__name__}."
        )
    return store.resolve(None if run is None else os.fspath(run), Path(runs))


def find_item(items: Sequence[WorkItem], text: str) -> WorkItem:
    """Return the item whose id begins with `text`.

    Raises:
        UsageError: there is none, or there are several.
    """
    found = [item for item in items if item.id.startswith(text.lower())] if text else []
    if len(found) == 1:
        return found[0]
    why = f"{len(found)} items begin so" if found else "no such item"
    raise UsageError(f"{text!r}: {why}.", remedy="Ids are listed by: genrun status --json.")


def texts(name: str, given: object) -> list[Any]:
    """Return an argument that is a list of texts or paths. Raises TypeError for anything else, such as one of them alone."""
    if isinstance(given, str | os.PathLike):
        raise TypeError(f"{name} is a list, such as [{os.fspath(given)!r}]; got one text.")
    listed = [*given] if isinstance(given, Iterable) else [None]
    if not all(isinstance(each, str | os.PathLike) for each in listed):
        raise TypeError(f"{name} is a list of texts; got {given!r}.")
    return listed
