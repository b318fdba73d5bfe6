"""`genrun submit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import json_option, put_json, put_table, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from genrun.runner.plan import WorkItem
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.submit import Job

STATES = ("new", "done", "failed")


@click.command(
    cls=Verb,
    examples=(
        "genrun submit jobs/demo.yaml",
        "genrun submit jobs/demo.yaml -n",
        "genrun submit jobs/demo.yaml --set launch.kind=torchrun --set parallel.data=2",
        "genrun submit jobs/demo.yaml --json | tail -1",
    ),
)
@click.argument("job", type=click.Path(path_type=Path))
@click.option("-n", "--dry-run", is_flag=True, help="Show what would run; write nothing.")
@click.option("--set", "sets", multiple=True, metavar="A.B=VALUE", help="Change a value of the job.")
@click.option("--run", type=click.Path(path_type=Path), help="Go on with this run, or refuse if the job has changed.")
@click.option("--wait", is_flag=True, help="Return when the work is done, also where a launcher queues it.")
@json_option
def submit(job: Path, dry_run: bool, sets: tuple[str, ...], run: Path | None, wait: bool, as_json: bool) -> None:
    """Run a job, or finish a run that was cut off.

    The newest run with the same items is resumed: done items are kept, failed ones tried again. A job with other
    items gets a new run folder. Prints the run's folder. Exit codes: 0 all done, 1 items failed, 3 not finished.
    """
    from genrun.runner import submit as submitting
    from genrun.runner.cli.launching import launch, make_launcher
    from genrun.runner.store.folder import RunFolder

    loaded = _load(job, sets)
    base = Path(loaded.spec.output.dir)
    named = None if run is None else RunFolder.open(run)
    launcher = make_launcher(loaded.spec)
    if dry_run:
        if named is not None:
            submitting.check_same(loaded, named)
        _preview(loaded, named or submitting.find_run(loaded, base), as_json)
        return
    folder = submitting.open_run(loaded, base, named)
    launch(folder, loaded.spec, launcher, wait=wait, as_json=as_json)


def _load(path: Path, sets: Sequence[str]) -> Job:
    from genrun.runner.plan import plan
    from genrun.runner.spec import load
    from genrun.runner.submit import Job

    loaded = load(path, sets)
    return Job(loaded.job, loaded.document, plan(loaded))


def _preview(job: Job, folder: RunFolder | None, as_json: bool) -> None:
    """Show what would run: new, done and failed items, by the job's axes."""
    records = {} if folder is None else folder.records()
    states = {item.id: records[item.id].status if item.id in records else "new" for item in job.items}
    tallied = {state: list(states.values()).count(state) for state in STATES}
    if as_json:
        put_json(_preview_json(job, folder, states))
        return
    say(f"Would go on with {folder.path}." if folder else f"Would make a new run of {job.spec.name!r}.")
    axes = list(job.items[0].axes) if job.items else []
    rows = _by_axes(job.items, states)
    put_table([*axes, *STATES], rows, right=STATES)
    run = tallied["new"] + tallied["failed"]
    say(f"{run} of {len(job.items)} items would run ({job.spec.launch.kind}). Nothing was written.")


def _preview_json(job: Job, folder: RunFolder | None, states: dict[str, str]) -> dict[str, Any]:
    found = list(states.values())
    return {
        "run": str(folder.path) if folder else None,
        "items": len(found),
        "done": found.count("done"),
        "failed": found.count("failed"),
        "pending": found.count("new"),
        "jobs": [],
        "rows": [{"id": item.id, "state": states[item.id], "axes": dict(item.axes)} for item in job.items],
    }


def _by_axes(items: Sequence[WorkItem], states: dict[str, str]) -> list[list[object]]:
    groups: dict[tuple[str, ...], list[str]] = {}
    for item in items:
        groups.setdefault(tuple(item.axes.values()), []).append(states[item.id])
    return [[*axes, *(found.count(state) for state in STATES)] for axes, found in groups.items()]
