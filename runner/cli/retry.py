"""`genrun retry`."""

from __future__ import annotations

from pathlib import Path

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import json_option, say
from genrun.runner.cli.runs import find_item, run_argument
from genrun.runner.errors import UsageError


@click.command(cls=Verb, examples=("genrun retry", "genrun retry demo", "genrun retry demo --item 3f9c --item 07ab"))
@run_argument
@click.option("--item", "wanted", multiple=True, metavar="ID", help="Only this item (the first digits do).")
@click.option("--wait", is_flag=True, help="Return when the work is done, also where a launcher queues it.")
@json_option
def retry(run: str | None, base: Path, wanted: tuple[str, ...], wait: bool, as_json: bool) -> None:
    """Run the failed items of a run again.

    Missing items are made, too, unless jobs in a queue are at work on them. The job is the one stored in the run, and
    each item gets all its attempts afresh.
    """
    from genrun.runner.cli.launching import Wishes, launch, make_launcher
    from genrun.runner.spec import restore
    from genrun.runner.store.runs import resolve

    folder = resolve(run, base)
    items = [find_item(folder.items(), text).id for text in wanted]
    for item_id in items:
        record = folder.record(item_id)
        if record is not None and record.status == "done":
            raise UsageError(f"{item_id}: is done already.", remedy=f"To make it again: genrun rerun {item_id}.")
    document = folder.job_document()
    spec = restore(document)
    tally = folder.tally()
    say(f"{tally.failed} failed and {tally.pending} missing items.")
    launcher = make_launcher(spec, document, folder.items())
    if launcher.at_work(folder):
        # What is missing is being made; what failed beside that is made by workers of its own.
        items = items or [item_id for item_id, record in folder.records().items() if record.status == "failed"]
        wishes = Wishes(items, wait=wait, join=bool(items), as_json=as_json)
    else:
        wishes = Wishes(items or None, wait=wait, as_json=as_json)
    launch(folder, spec, launcher, wishes)
