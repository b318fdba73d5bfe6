"""Jobs as the runs were begun that they go on with: K was 8 where a job said none, up to 0.1.0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.api.jobs import AnyJob, load_job
from genrun.runner.api.listener import Listener

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.submit.match import SubmittedJob


def as_begun(
    made: SubmittedJob, named: RunFolder | None, job: AnyJob, sets: Sequence[str], listener: Listener
) -> SubmittedJob:
    """Return a job as the run that it goes on with was begun, where that is one of 0.1.0; else the job as it is.

    Args:
        made: the job as this version plans it.
        named: the run that it is to go on with; None for any of its name.
        job: what it was made from.
        sets: changes of the job, as texts `a.b=value`.
        listener: hears it when there is such a run.
    """
    from genrun.runner.job.workers import OF_0_1
    from genrun.runner.store.runs import runs_of
    from genrun.runner.submit.match import SubmittedJob, find_run, is_run_of

    base = Path(made.spec.output.dir)
    if named is None:
        if next(runs_of(base / made.spec.name), None) is None or find_run(made, base) is not None:
            return made
    elif is_run_of(made, named):
        return made
    loaded = load_job(job, sets, workers=OF_0_1)
    older = SubmittedJob.of(loaded)
    if {item.id for item in older.items} == {item.id for item in made.items}:
        return made
    found = find_run(older, base) if named is None else named if is_run_of(older, named) else None
    if found is None:
        return made
    listener.say(
        f"{found.path}: goes on with {OF_0_1} workers, as it was begun; for `workers: auto` submit with --new."
    )
    return older
