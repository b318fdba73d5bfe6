"""Runs whose plan or job.yaml is damaged: told by what is left of them, and written again from the job.

Ids are hashes of what an item is, so that what is left of a plan, and the records beside it, tell which job they are of.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from genrun.runner.errors import DamagedFileError, JobFileError
from genrun.runner.store.repair import set_aside
from genrun.runner.store.planfile import misfits

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.submit.find import Job


def is_run_of(job: Job, folder: RunFolder) -> bool:
    """Whether a run has exactly a job's items, as far as it can still be told.

    Raises:
        UnreadableError: the plan may not be looked into.
    """
    return holds(folder, {item.id for item in job.items}, job.document)


def holds(folder: RunFolder, wanted: Collection[str], document: Mapping[str, Any]) -> bool:
    """Whether a run has exactly the items `wanted`; of a damaged plan, whether all that is left is of that job.

    Raises:
        UnreadableError: the plan may not be looked into.
    """
    planned, is_damaged = _planned(folder, wanted)
    if not is_damaged:
        return planned == set(wanted)
    found = folder.survey()
    known = planned | (found.records.keys() - {path.stem for path in found.damaged})
    if not known <= set(wanted):
        return False
    try:
        return _same_pictures(folder.job_document(), document)
    except DamagedFileError:
        return bool(known)


def renew(job: Job, folder: RunFolder) -> list[str]:
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
                set_aside(folder, folder.path / name)
            is_same = False
        else:
            is_same = is_same and found == wanted and folder.is_as_written(name)
    if not is_same:
        folder.write_plan(job.document, job.items)
    return notes


def rebuild(folder: RunFolder) -> list[str]:
    """Write a damaged plan.jsonl again from the run's own job.yaml; say so.

    Raises:
        DamagedFileError: job.yaml is damaged, too, or does not make the items that the run has.
        UnreadableError: one of them may not be looked into.
    """
    from genrun.runner.job import load
    from genrun.runner.job.plan import plan
    from genrun.runner.submit.find import Job

    if not _planned(folder, ())[1]:
        return []
    document = folder.job_document()
    try:
        loaded = load(folder.path / "job.yaml")
        job = Job(loaded.job, document, plan(loaded))
    except JobFileError as error:
        raise _hopeless(folder, str(error).splitlines()[0]) from error
    if not is_run_of(job, folder):
        raise _hopeless(folder, "its job.yaml makes other items now")
    return renew(job, folder)


def _planned(folder: RunFolder, wanted: Collection[str]) -> tuple[set[str], bool]:
    """The items of a plan whose lines are whole, and whether any are not."""
    try:
        plan = folder.plan()
    except DamagedFileError:
        return set(), True
    planned = {item.id for item in plan.items}
    # Reckoning every id of every run would take long: only a run that seems to be the one, but for some lines, is looked at.
    if planned == set(wanted) or (wanted and planned.isdisjoint(wanted)):
        return planned, bool(plan.wrong)
    wrong = misfits(plan, is_ours=is_ours(folder))
    fitting = {item.id for number, item in zip(plan.lines, plan.items, strict=True) if number not in wrong}
    return fitting, bool(plan.wrong or wrong)


def is_ours(folder: RunFolder) -> bool:
    """Whether this version of genrun made a run."""
    from genrun import __version__

    try:
        return folder.environment().get("versions", {}).get("genrun") == __version__
    except DamagedFileError:
        return False


def _same_pictures(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    from genrun.runner.submit.find import changed_fields

    return not changed_fields(old, new)


def _hopeless(folder: RunFolder, why: str) -> DamagedFileError:
    return DamagedFileError(
        f"{folder.path / 'plan.jsonl'}: is damaged, and cannot be written again from job.yaml: {why}.",
        remedy=f"Submit the job file again: genrun submit JOB --run {folder.path}.",
    )
