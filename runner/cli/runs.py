"""What verbs about runs have in common: the arguments, and the numbers for scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.errors import UsageError
from genrun.runner.notes import count_notes

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.records import Record
    from genrun.runner.store.results import Tally

RUNS = "runs"
"""The folder of runs, unless told otherwise."""

runs_option = click.option(
    "--runs",
    "base",
    type=click.Path(path_type=Path, file_okay=False),
    default=RUNS,
    show_default=True,
    help="The folder of runs.",
)
"""Decorator that gives a verb the option `--runs`, as the argument `base`."""


def run_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator that gives a verb the argument RUN and the option `--runs`."""
    return click.argument("run", required=False)(runs_option(command))


def counts(folder: RunFolder, tally: Tally, jobs: Sequence[str] = ()) -> dict[str, Any]:
    """Return the numbers of a run for scripts."""
    return {
        "run": str(folder.path),
        "items": tally.items,
        "done": tally.done,
        "failed": tally.failed,
        "pending": tally.pending,
        "jobs": list(jobs),
    }


def notes_json(records: Iterable[Record]) -> dict[str, Any]:
    """Return how many done items have notes, by kind, for scripts; nothing where none has one."""
    found = count_notes(records)
    return {"notes": found} if found else {}


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
