"""Running a job for tonight, and listing the nights that were."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.api import RUNS, launching
from genrun.runner.api.calls import QUIET, Listener, checked
from genrun.runner.api.jobs import AnyJob, load_job
from genrun.runner.api.state import AnyRun, JobName, run_folder
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from genrun.runner.nightly.run import Outcome
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.nights import Night


@checked
def nightly(job: AnyJob, *, sets: Sequence[str] = (), again: bool = False, listener: Listener = QUIET) -> Outcome:
    """Run a job for tonight, score it, compare it with its baseline and last night, report it, and notify.

    A night that was cut off is taken up; one that is done is left as it is.

    Args:
        job: a job file, YAML text (with a line break), or a mapping with a job's keys.
        sets: changes of the job, as texts `a.b=value`.
        again: make another run of a night that is done.
        listener: hears what is done, and how far it is.

    Raises:
        UsageError: this machine cannot run the job; then nothing was begun.
    """
    from genrun.runner.nightly.run import Tools, needs_items, run_night
    from genrun.runner.report.build import build_report
    from genrun.runner.submit.resume import SubmittedJob

    loaded = load_job(job, sets)
    spec, made = loaded.job, SubmittedJob.of(loaded)
    launcher = launching.make_launcher(spec, loaded.document, made.items)

    def make_items(folder: RunFolder) -> None:
        launching.launch(launching.Submission(folder), spec, launcher, listener=listener)

    tools = Tools(
        make_items=make_items,
        is_at_work=launching.is_at_work,
        report=lambda folder: build_report(folder).path,
        now=lambda: datetime.now().astimezone(),
        say=listener.say,
        environ=os.environ,
    )
    base = Path(spec.output.dir)
    if needs_items(made, base, tools.now(), again=again):
        launcher.check_machine()
    return run_night(made, base, tools, again=again)


@checked
def history(
    job: JobName = None,
    *,
    rebuild: bool = False,
    runs: str | os.PathLike[str] = RUNS,
    listener: Listener = QUIET,
) -> list[Night]:
    """Return the nights of a job, or of all jobs, oldest first; also those whose runs were removed to make room.

    Args:
        job: name of the job.
        rebuild: make the history file again from the run folders.
        runs: the folder of runs.
        listener: hears how many nights `rebuild` found.

    Raises:
        UsageError: the job has no nights.
    """
    from genrun.registry import did_you_mean
    from genrun.runner import history as index

    base = Path(runs)
    if rebuild:
        listener.say(f"{base}: {index.rebuild(base)} nights.")
    nights = index.read(base, job)
    if job is not None and not nights:
        known = sorted({night.job for night in index.read(base)})
        listed = f"Jobs with nights: {', '.join(known)}." if known else f"There are no nights in {base}."
        raise UsageError(f"{job!r}: no nights of that job.{did_you_mean(job, known)}", remedy=listed)
    return nights


@checked
def pin(run: AnyRun = None, *, runs: str | os.PathLike[str] = RUNS) -> RunFolder:
    """Make a run the baseline that its job's nights are held against.

    Args:
        run: the run, all of whose items are done.
        runs: the folder of runs, for names.

    Raises:
        UsageError: an item of the run is not done.
    """
    from genrun.runner.store import runs as store

    folder = run_folder(run, runs)
    tally = folder.tally()
    if tally.done < tally.items:
        raise UsageError(
            f"{folder.path}: {tally.done} of {tally.items} items are done; a baseline needs all.",
            remedy=f"Finish it: genrun retry {folder.path}.",
        )
    store.pin(folder)
    return folder


@checked
def unpin(run: AnyRun = None, *, runs: str | os.PathLike[str] = RUNS) -> bool:
    """Leave the nights of a run's job without a baseline; return whether there was one."""
    from genrun.runner.store import runs as store

    return store.unpin(run_folder(run, runs).path.parent)
