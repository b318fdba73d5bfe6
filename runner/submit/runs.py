"""The run that a job belongs to: found by its items, never mixed with others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.errors import MixError
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.runs import new_path, point_latest, runs_of

if TYPE_CHECKING:
    from genrun.runner.plan import WorkItem
    from genrun.runner.spec.schema import JobSpec

PIXEL_SECTIONS = ("name", "model", "prompts", "seeds", "sampling", "solver", "cache", "attention", "matrix")
SHOWN = 6


@dataclass(frozen=True)
class Job:
    """A job as it is submitted.

    Attributes:
        spec: the job.
        document: the resolved job, as it is stored.
        items: its plan.
    """

    spec: JobSpec
    document: Mapping[str, Any]
    items: Sequence[WorkItem]


def find_run(job: Job, base: Path) -> RunFolder | None:
    """Return the newest run of this job's name that has exactly its items, or None."""
    wanted = {item.id for item in job.items}
    for path in runs_of(base / job.spec.name):
        folder = RunFolder.open(path)
        if {item.id for item in folder.items()} == wanted:
            return folder
    return None


def check_same(job: Job, folder: RunFolder) -> None:
    """Refuse to mix a changed job into an old run.

    Raises:
        MixError: the run holds other items; the message names the changed fields.
    """
    old = {item.id for item in folder.items()}
    new = {item.id for item in job.items}
    if old == new:
        return
    changes = changed_fields(folder.job_document(), job.document)
    if not changes:
        changes = ["the prompts' file, the checkpoint or the defaults of an adapter"]
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


def open_run(job: Job, base: Path, run: RunFolder | None) -> RunFolder:
    """Return the run this job resumes, or make a new one; `latest` points to it afterwards.

    Raises:
        MixError: `run` is given and holds other items.
        StoreError: the folder cannot be written.
    """
    if run is not None:
        check_same(job, run)
    folder = run or find_run(job, base)
    if folder is None:
        folder = RunFolder.create(new_path(base, job.spec.name), job.document, job.items)
    elif folder.job_document() != dict(job.document):
        folder.write_plan(job.document, job.items)
    if folder.path.parent.name == job.spec.name:
        point_latest(folder)
    return folder


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {field: leaf for key, inner in value.items() for field, leaf in _flat(inner, f"{path}.{key}").items()}
    return {path.removeprefix("."): value}
