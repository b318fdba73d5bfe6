"""A run's plan and job.yaml, written again where they are damaged or not the job's."""

from __future__ import annotations

import os

from genrun.runner.errors import DamagedFileError
from genrun.runner.job.errors import JobFileError
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.inputs import keep
from genrun.runner.store.results import set_aside
from genrun.runner.submit.match import SubmittedJob, is_run_of, planned_ids


def renew(job: SubmittedJob, folder: RunFolder) -> list[str]:
    """Write job.yaml and plan.jsonl of a job's run again where they are not the job's; say what was damaged.

    Raises:
        UnreadableError: one of them may not be looked into.
        StoreError: they cannot be written.
    """
    notes, is_same = [], True
    for name, read, wanted in (
        ("plan.jsonl", folder.items, list(job.items)),
        ("job.yaml", folder.job_document, dict(job.document)),
    ):
        try:
            found = read()
        except DamagedFileError as error:
            notes.append(f"{error.message} Written again from the job.")
            if os.path.lexists(folder.path / name):
                set_aside(folder.path, folder.path / name)
            is_same = False
        else:
            is_same = is_same and found == wanted and folder.is_as_written(name)
    if not is_same:
        folder.write_plan(job.document, job.items)
    return notes + keep(folder, job.inputs)


def rebuild(folder: RunFolder) -> list[str]:
    """Write a damaged plan.jsonl again from the run's own job.yaml; say so.

    Raises:
        DamagedFileError: job.yaml is damaged, too, or does not make the items that the run has.
        UnreadableError: one of them may not be looked into.
    """
    from genrun.runner.job import load
    from genrun.runner.job.workers import OF_0_1

    if not planned_ids(folder, ())[1]:
        return []
    document = folder.job_document()
    try:
        loaded = load(folder.path / "job.yaml")
        job = SubmittedJob.of(loaded, document)
        if not is_run_of(job, folder):
            job = SubmittedJob.of(load(folder.path / "job.yaml", workers=OF_0_1), document)
    except JobFileError as error:
        raise _hopeless(folder, str(error).splitlines()[0]) from error
    if not is_run_of(job, folder):
        raise _hopeless(folder, "its job.yaml makes other items now")
    return renew(job, folder)


def _hopeless(folder: RunFolder, why: str) -> DamagedFileError:
    return DamagedFileError(
        f"{folder.path / 'plan.jsonl'}: is damaged, and cannot be written again from job.yaml: {why}.",
        remedy=f"Submit the job file again: genrun submit JOB --run {folder.path}.",
    )
