"""`genrun cancel`."""

from __future__ import annotations

from pathlib import Path

import click

from genrun.runner.cli.arguments import item_option, run_argument
from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import Terminal


@click.command(
    cls=Verb,
    examples=("genrun cancel", "genrun cancel array --task 3 --task 1234_5", "genrun cancel array --item 3f9c"),
)
@run_argument
@click.option("--task", "tasks", multiple=True, metavar="N", help="Only this task of the array: 3, or 1234_3.")
@item_option
def cancel(run: str | None, base: Path, tasks: tuple[str, ...], items: tuple[str, ...]) -> None:
    """Stop the work on a run, on one of its tasks, or on one item.

    Without an option, everything of the run that waits or works. Finished items are kept, those in work are dropped;
    the same submission again goes on with them. An item that is cancelled counts as failed; genrun retry makes it.
    """
    from genrun.runner.api import state

    state.cancel(run, tasks=tasks, items=items, runs=base, listener=Terminal())
