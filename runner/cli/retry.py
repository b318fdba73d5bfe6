"""`genrun retry`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import json_option, say
from genrun.runner.cli.runs import find_item, run_argument
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.folder import RunFolder


@click.command(cls=Verb, examples=("genrun retry", "genrun retry demo", "genrun retry demo --item 3f9c --item 07ab"))
@run_argument
@click.option("--item", "wanted", multiple=True, metavar="ID", help="Only this item (the first digits do).")
@click.option("--wait", is_flag=True, help="Return when the work is done, also where a launcher queues it.")
@json_option
def retry(run: str | None, base: Path, wanted: tuple[str, ...], wait: bool, as_json: bool) -> None:
    """Run the failed items of a run again.

    Items whose files were lost or changed count as failed. Missing items are made, too, unless jobs in a queue are at
    work on them. The job is the one stored in the run, and each item gets all its attempts afresh.
    """
    from genrun.runner.cli.launching import Wishes, launch, make_launcher
    from genrun.runner.job import restore
    from genrun.runner.store.repair import repair
    from genrun.runner.store.runs import resolve
    from genrun.runner.submit.active import at_work
    from genrun.runner.submit.lock import of_run
    from genrun.runner.submit.rebuild import rebuild

    folder = resolve(run, base)
    for note in rebuild(folder):
        say(note)
    planned = folder.items()
    chosen = [find_item(planned, text) for text in wanted]
    items = [item.id for item in chosen]
    document = folder.job_document()
    spec = restore(document)
    launcher = make_launcher(spec, document, planned)
    with of_run(folder, say):
        if not at_work(folder):
            for note in repair(folder, items):
                say(note)
        _set_back(folder, chosen, planned, document)
    tally = folder.tally()
    say(f"{tally.failed} failed and {tally.pending} missing items.")
    if launcher.at_work(folder):
        # What is missing is being made; what failed beside that is made by workers of its own.
        items = items or [
            item_id for item_id, record in folder.records(check_files=True).items() if record.status == "failed"
        ]
        wishes = Wishes(items, wait=wait, join=bool(items), as_json=as_json)
    else:
        wishes = Wishes(items or None, wait=wait, as_json=as_json)
    launch(folder, spec, launcher, wishes)


def _set_back(
    folder: RunFolder, chosen: Sequence[WorkItem], planned: Sequence[WorkItem], document: Mapping[str, Any]
) -> None:
    """Set lost items back, so that they are made again; refuse those that are done. Named ones are read in full."""
    from genrun.runner.submit.stale import set_back

    mended = set_back(folder, chosen or planned, document, thorough=bool(chosen))
    for item in chosen:
        record = folder.record(item.id)
        if record is not None and record.status == "done":
            raise UsageError(f"{item.id}: is done already.", remedy=f"To make it again: genrun rerun {item.id}.")
    for line in mended.lines():
        say(f"{folder.path}: {line}")
