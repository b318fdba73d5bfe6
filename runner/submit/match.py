"""The run that a job belongs to: found by its items, whose ids are hashes of what they are, and never mixed with others.

What is left of a damaged plan, and the records beside it, tell by their ids which job they are of.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.errors import DamagedFileError, MixError
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.planfile import misfits
from genrun.runner.store.runs import runs_of

if TYPE_CHECKING:
    from genrun.adapters.input_files import InputFile
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.job.resolve import LoadedJob
    from genrun.runner.job.schema import JobSpec

PIXEL_SECTIONS = ("name", "model", "prompts", "seeds", "sampling", "solver", "cache", "attention", "matrix")
"""Sections of a job on which its pictures depend."""

SHOWN = 6
"""Changed fields that a message names."""


@dataclass(frozen=True)
class SubmittedJob:
    """A job as it is submitted.

    Attributes:
        spec: the job.
        document: the resolved job, as it is stored.
        items: its plan.
        inputs: pictures and clips that its prompts name.
    """

    spec: JobSpec
    document: Mapping[str, Any]
    items: Sequence[WorkItem]
    inputs: Sequence[InputFile] = ()

    @classmethod
    def of(cls, loaded: LoadedJob, document: Mapping[str, Any] | None = None) -> SubmittedJob:
        """Plan a job that was loaded; `document` is how it is stored, where that is not what was resolved.

        Raises:
            JobFileError: as `plan`.
        """
        from genrun.runner.job.plan import plan

        inputs = (file for cell in loaded.cells for each in cell.inputs for files in each.values() for file in files)
        found = tuple({file.sha256: file for file in inputs}.values())
        return cls(loaded.job, loaded.document if document is None else document, plan(loaded), found)


def find_run(job: SubmittedJob, base: Path) -> RunFolder | None:
    """Return the newest run of this job's name that has exactly its items, or None."""
    for path in runs_of(base / job.spec.name):
        folder = RunFolder.open(path)
        if is_run_of(job, folder):
            return folder
    return None


def check_same(job: SubmittedJob, folder: RunFolder) -> None:
    """Refuse to mix a changed job into an old run.

    Raises:
        MixError: the run holds other items; the message names the changed fields.
    """
    if is_run_of(job, folder):
        return
    old = {item.id for item in folder.plan().items}
    new = {item.id for item in job.items}
    changes = changed_fields(folder.job_document(), job.document)
    if not changes:
        changes = ["the prompts' file, the checkpoint, a calibration or the defaults of an adapter"]
    listed = "".join(f"\n    {change}" for change in changes[:SHOWN])
    more = f"\n    and {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    raise MixError(
        f"{folder.path}: the job has changed since this run was made "
        f"({len(new - old)} items are new, {len(old - new)} gone):{listed}{more}",
        remedy="Submit without --run to start a new run, or restore the old values.",
    )


def changed_fields(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List the dotted fields that differ, among those that change pixels: "sampling.steps: 20 -> 30"."""
    before, after = (_flat({key: job.get(key) for key in PIXEL_SECTIONS}) for job in (old, new))
    missing = "(not set)"
    return [
        f"{field}: {before.get(field, missing)!s:.60} -> {after.get(field, missing)!s:.60}"
        for field in sorted({*before, *after})
        if before.get(field, missing) != after.get(field, missing)
    ]


def is_run_of(job: SubmittedJob, folder: RunFolder) -> bool:
    """Tell whether a run has exactly a job's items, as far as it can still be told.

    Raises:
        UnreadableError: the plan may not be looked into.
    """
    return holds(folder, {item.id for item in job.items}, job.document)


def holds(folder: RunFolder, wanted: Collection[str], document: Mapping[str, Any]) -> bool:
    """Tell whether a run has exactly the items `wanted`; of a damaged plan, whether all that is left is of that job.

    Raises:
        UnreadableError: the plan may not be looked into.
    """
    planned, is_damaged = planned_ids(folder, wanted)
    if not is_damaged:
        return planned == set(wanted)
    found = folder.survey()
    known = planned | (found.records.keys() - {path.stem for path in found.damaged})
    if not known <= set(wanted):
        return False
    try:
        return not changed_fields(folder.job_document(), document)
    except DamagedFileError:
        return bool(known)


def planned_ids(folder: RunFolder, wanted: Collection[str]) -> tuple[set[str], bool]:
    """Return the items of a plan whose lines are whole, and whether any are not; `wanted` are those that are looked for."""
    try:
        plan = folder.plan()
    except DamagedFileError:
        return set(), True
    planned = {item.id for item in plan.items}
    # Reckoning every id of every run would take long: only a run that seems to be the one, but for some lines, is looked at.
    if planned == set(wanted) or (wanted and planned.isdisjoint(wanted)):
        return planned, bool(plan.wrong)
    wrong = misfits(plan, is_ours=folder.is_of_this_version())
    fitting = {item.id for number, item in zip(plan.lines, plan.items, strict=True) if number not in wrong}
    return fitting, bool(plan.wrong or wrong)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {field: leaf for key, inner in value.items() for field, leaf in _flat(inner, f"{path}.{key}").items()}
    return {path.removeprefix("."): value}
