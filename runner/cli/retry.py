"""`genrun retry`."""

from __future__ import annotations

from pathlib import Path

import click

from genrun.runner.cli.arguments import item_option, run_argument, wait_option
from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import Terminal, json_option
from genrun.runner.cli.submit import put_submission


@click.command(cls=Verb, examples=("genrun retry", "genrun retry demo", "genrun retry demo --item 3f9c --item 07ab"))
@run_argument
@item_option
@wait_option
@json_option
def retry(run: str | None, base: Path, items: tuple[str, ...], wait: bool, as_json: bool) -> None:
    """Run the failed items of a run again.

    Items whose files were lost or changed count as failed. Missing items are made, too, unless jobs in a queue are at
    work on them. The job is the one stored in the run, and each item gets all its attempts afresh.
    """
    from genrun.runner.api import submitting

    terminal = Terminal()
    put_submission(lambda: submitting.retry(run, items, wait=wait, runs=base, listener=terminal), terminal, as_json)
