"""`genrun submit`."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import json_option, put, put_json, put_table, say
from genrun.runner.cli.runs import RUNS
from genrun.runner.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from genrun.runner.cli.launching import Wishes
    from genrun.runner.job.errors import Origin
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.launch.protocol import Launcher
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.records import Record
    from genrun.runner.submit.match import Job

NEW, DONE, FAILED, REUSED = "new", "done", "failed", "reused"
STATES = (NEW, DONE, FAILED)


@click.command(
    cls=Verb,
    examples=(
        "genrun submit jobs/demo.yaml",
        "genrun submit jobs/demo.yaml -n",
        "genrun submit jobs/demo.yaml --set launch.kind=torchrun --set parallel.data=2",
        "genrun submit jobs/array.yaml --set launch.array=16 --wait",
        "genrun submit --join array --set launch.partition=spare",
        "genrun submit jobs/demo.yaml --json | tail -1",
    ),
)
@click.argument("job", type=click.Path(path_type=Path), required=False)
@click.option("-n", "--dry-run", is_flag=True, help="Show what would run; write nothing.")
@click.option("--set", "sets", multiple=True, metavar="A.B=VALUE", help="Change a value of the job.")
@click.option("--run", help="Go on with this run, or refuse if the job has changed.")
@click.option("--new", "fresh", is_flag=True, help="Make all items again, in a new run.")
@click.option("--join", metavar="RUN", help="Add workers to a run that is at work, as its own job says; without JOB.")
@click.option("--wait", is_flag=True, help="Return when the work is done, also where a launcher queues it.")
@click.option(
    "--runs",
    "base",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder of runs, in place of the job's output.dir.",
)
@json_option
def submit(
    job: Path | None,
    dry_run: bool,
    sets: tuple[str, ...],
    run: str | None,
    fresh: bool,
    join: str | None,
    wait: bool,
    base: Path | None,
    as_json: bool,
) -> None:
    """Run a job, or finish a run that was cut off.

    The newest run with the same items is resumed: done items are kept, failed ones tried again, lost files made again.
    A job with other items gets a new run folder, which takes over what earlier runs of the job have made of its items;
    with --new it takes nothing. Files are written again from saved latents where `output` has changed. Prints the run's
    folder. Exit codes: 0 all done, 1 items failed, 3 not finished.
    """
    from genrun.runner.cli.launching import Wishes

    if (job is None) == (join is None):
        raise UsageError("wanted a job file, or --join RUN.", remedy="For example: genrun submit jobs/demo.yaml.")
    if fresh and (run is not None or join is not None):
        raise UsageError(f"--new makes a run, and --{'join' if join else 'run'} names one: choose one of them.")
    if job is None:
        _join(str(join), base or Path(RUNS), sets, Wishes(wait=wait, join=True, as_json=as_json))
    else:
        if base is not None:
            sets = (*sets, f"output.dir={json.dumps(str(base))}")
        _submit(job, dry_run, sets, run, Wishes(wait=wait, as_json=as_json), fresh=fresh)


def _submit(
    path: Path, dry_run: bool, sets: Sequence[str], run: str | None, wishes: Wishes, *, fresh: bool = False
) -> None:
    from genrun.runner.cli.launching import is_at_work, launch, make_launcher
    from genrun.runner.nightly.retention import finish_removals_if_idle
    from genrun.runner.store.repair import remove_from_job
    from genrun.runner.store.runs import resolve
    from genrun.runner.submit.lock import of_job
    from genrun.runner.submit.match import check_same, find_run
    from genrun.runner.submit.resume import open_run

    job, origin = _load(path, sets)
    runs = Path(job.spec.output.dir)
    named = None if run is None else resolve(run, runs)
    with _blaming(origin):
        launcher = make_launcher(job.spec, job.document, job.items)
        if dry_run:
            if named is not None:
                check_same(job, named)
            folder = named or (None if fresh else find_run(job, runs))
            states = _states(job, runs, folder, fresh=fresh)
            _preview(job, folder, launcher, wishes.as_json, states)
            return
        with contextlib.ExitStack() as locks:
            locks.enter_context(of_job(runs / job.spec.name, say))
            remove_from_job(runs / job.spec.name)
            finish_removals_if_idle(runs / job.spec.name)
            opened = open_run(job, runs, named, fresh=fresh, is_at_work=is_at_work, say=say)
            for line in opened.lines(len(job.items)):
                say(line)
            launch(opened.folder, job.spec, launcher, wishes, locks, opened.counts())


def _states(job: Job, runs: Path, folder: RunFolder | None, *, fresh: bool) -> dict[str, str]:
    """The state of every item, by id: in the run that would be gone on with, or in a new one.

    Raises:
        MixError: the files of the run cannot be written as the job says.
    """
    from genrun.runner.submit.reuse import reusable
    from genrun.runner.submit.stale import find_stale as survey

    states = dict.fromkeys((item.id for item in job.items), NEW)
    if folder is None:
        return states if fresh else states | dict.fromkeys(reusable(job, runs / job.spec.name), REUSED)
    mended = survey(folder, job.items, job.document).mended(folder)
    for line in mended.lines():
        say(f"{folder.path}: {line}")
    records = folder.records()
    states |= {item_id: records[item_id].status for item_id in states if item_id in records}
    return states | dict.fromkeys((*mended.lost, *mended.outdated), FAILED)


def _join(run: str, base: Path, sets: Sequence[str], wishes: Wishes) -> None:
    from genrun.runner.cli.launching import launch, make_launcher
    from genrun.runner.job import restore
    from genrun.runner.store.runs import resolve

    folder = resolve(run, base)
    document = folder.job_document()
    spec = restore(document, sets=sets)
    launch(folder, spec, make_launcher(spec, document, folder.items()), wishes)


def _load(path: Path, sets: Sequence[str]) -> tuple[Job, Mapping[str, Origin]]:
    from genrun.runner.job import load
    from genrun.runner.job.plan import plan
    from genrun.runner.submit.match import Job

    loaded = load(path, sets)
    for warning in loaded.warnings:
        say(warning)
    return Job(loaded.job, loaded.document, plan(loaded)), loaded.origin


@contextlib.contextmanager
def _blaming(origin: Mapping[str, Origin]) -> Iterator[None]:
    """Tell the place in the job file of what a queue refuses."""
    from genrun.runner.job.errors import Problem, raise_all

    try:
        yield
    except RefusedError as error:
        places = [place for path, place in origin.items() if path.startswith(error.field) and place.file != "default"]
        place = next(iter(places), origin.get("launch.kind"))
        if place is None:
            raise
        raise_all([Problem(place, error.field, error.reason)])


def _preview(job: Job, folder: RunFolder | None, launcher: Launcher, as_json: bool, states: dict[str, str]) -> None:
    """Show what would run: new, done, failed and reused items, by the job's axes; and the batch script."""
    records = {} if folder is None else folder.records()
    tallied = Counter(states.values())
    reused = tallied[REUSED]
    run = tallied[NEW] + tallied[FAILED]
    script = _script(job, folder, launcher, run)
    if as_json:
        put_json({**_preview_json(job, folder, states), **({} if script is None else {"script": script})})
        return
    say(f"Would go on with {folder.path}." if folder else f"Would make a new run of {job.spec.name!r}.")
    if reused:
        say(f"{reused} reused, {run} new.")
    columns = (*STATES, *((REUSED,) if reused else ()))
    axes = list(job.items[0].axes) if job.items else []
    put_table([*axes, *columns], _by_axes(job.items, states, columns), right=columns)
    if script is not None:
        put(f"\n{script.removesuffix(chr(10))}")
    say(
        f"{run} of {len(job.items)} items would run ({job.spec.launch.kind}){_price(job, records)}. Nothing was written."
    )


def _script(job: Job, folder: RunFolder | None, launcher: Launcher, items: int) -> str | None:
    """The batch script as it would be, but for the times in the names of the run and the launch."""
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.runs import new_path
    from genrun.runner.submit.launch_order import new_order

    run = folder or RunFolder(new_path(Path(job.spec.output.dir), job.spec.name))
    return launcher.script(run, new_order(launcher, job.spec.launch.kind, job.spec), items)


def _price(job: Job, records: Mapping[str, Record]) -> str:
    """The rank-hours that the missing items will take at the pace of those that are done; "" before there are any."""
    from genrun.runner.submit.launch_order import wish_of

    times = [record.elapsed_s for record in records.values() if record.status == "done"]
    if not times or len(times) == len(job.items):
        return ""
    hours = (
        sum(times)
        / len(times)
        * (len(job.items) - len(times))
        * wish_of(job.spec, job.items).mesh().ranks_per_team
        / 3600
    )
    return f", about {hours:.1f} GPU-hours at the pace of those that are done"


def _preview_json(job: Job, folder: RunFolder | None, states: dict[str, str]) -> dict[str, Any]:
    found = list(states.values())
    return {
        "run": str(folder.path) if folder else None,
        "items": len(found),
        "done": found.count(DONE),
        "failed": found.count(FAILED),
        "pending": found.count(NEW),
        "reused": found.count(REUSED),
        "jobs": [],
        "rows": [{"id": item.id, "state": states[item.id], "axes": dict(item.axes)} for item in job.items],
    }


def _by_axes(items: Sequence[WorkItem], states: dict[str, str], columns: Sequence[str]) -> list[list[object]]:
    groups: dict[tuple[str, ...], list[str]] = {}
    for item in items:
        groups.setdefault(tuple(item.axes.values()), []).append(states[item.id])
    return [[*axes, *(found.count(state) for state in columns)] for axes, found in groups.items()]
