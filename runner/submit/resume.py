"""The run of a job: found by its items and never mixed with others; repaired, or made new with reused results.

Ids of items are hashes of what they are, so what is left of a damaged plan, and the records beside it, tell which job they
are of; plan and job.yaml are written again where they are damaged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.errors import DamagedFileError, MixError
from genrun.runner.job.errors import JobFileError
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.planfile import keep, misfits, written_with
from genrun.runner.store.repair import repair
from genrun.runner.store.results import set_aside
from genrun.runner.store.runs import is_stamped, new_path, point_latest, runs_of
from genrun.runner.submit.lock import Say, at_work, of_run
from genrun.runner.submit.reuse import SetBack, fill, set_back, stored

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
    """Return the newest run of this job's name that has exactly its items, or None.

    Folders that were renamed come last: what somebody copied beside a run, to keep it, is not gone on with.
    """
    for path in sorted(runs_of(base / job.spec.name), key=lambda path: not is_stamped(path.name)):
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


@dataclass(frozen=True)
class OpenedRun:
    """A run that a submission goes on with.

    Attributes:
        folder: the run.
        reused: items that were taken from earlier runs; 0 for a run that was there.
        set_back: results that are not what records or job say, to be made again.
    """

    folder: RunFolder
    reused: int = 0
    set_back: SetBack = field(default_factory=SetBack)

    def counts(self) -> dict[str, int]:
        """Return the same as numbers, for scripts."""
        return {"reused": self.reused, "lost": len(self.set_back.lost), "rewritten": len(self.set_back.outdated)}

    def lines(self, items: int) -> list[str]:
        """Say what was taken over and set back, in a run with so many items."""
        told = self.set_back.lines()
        if self.reused:
            told.insert(0, f"{self.reused} reused, {items - self.reused} new.")
        return [f"{self.folder.path}: {line}" for line in told]


def open_run(
    job: SubmittedJob,
    base: Path,
    run: RunFolder | None,
    *,
    fresh: bool = False,
    is_at_work: Callable[[RunFolder], bool] = lambda folder: False,
    say: Say = lambda text: None,
) -> OpenedRun:
    """Return the run this job resumes, or make a new one; `latest` points to it afterwards.

    Call while holding the job's lock. A new run gets what earlier runs of the job have made of its items.

    Args:
        job: the job.
        base: the folder of runs.
        run: the run to go on with, or None to find it.
        fresh: whether to make a new run, with nothing of earlier ones.
        is_at_work: whether somebody makes items of a run.
        say: told whom this waits for.

    Raises:
        MixError: `run` is given and holds other items, or media of the run cannot be written as the job says.
        StoreError: the folder cannot be written.
    """
    if run is not None:
        check_same(job, run)
    folder = run or (None if fresh else find_run(job, base))
    opened = _make(job, base, fresh=fresh) if folder is None else take_up(job, folder, is_at_work, say)
    if opened.folder.path.parent.name == job.spec.name:
        point_latest(opened.folder)
    return opened


def _make(job: SubmittedJob, base: Path, *, fresh: bool) -> OpenedRun:
    job_folder, counts = base / job.spec.name, [0]

    def take(new: RunFolder) -> None:
        keep(new, job.inputs)
        counts.append(0 if fresh else fill(new, job, job_folder))

    folder = RunFolder.create(new_path(base, job.spec.name), job.document, job.items, take)
    return OpenedRun(folder, counts[-1])


def take_up(job: SubmittedJob, folder: RunFolder, is_at_work: Callable[[RunFolder], bool], say: Say) -> OpenedRun:
    """Let a run follow a job whose items are the same: results first, so that job.yaml never says what they are not.

    Raises:
        MixError: media of the run cannot be written as the job says.
        StoreError: the run cannot be read or written.
    """
    with of_run(folder, say):
        if written_with(stored(folder, job.document)) != written_with(job.document) and is_at_work(folder):
            raise MixError(
                f"{folder.path}: workers are making files with the old values of `output`.",
                remedy="Wait for them, or stop them: genrun cancel. Then submit again.",
            )
        # Whether tasks wait in a queue does not matter here: only who holds an item may have a file half written.
        for note in () if at_work(folder) else repair(folder):
            say(note)
        stale = set_back(folder, job.items, job.document)
        for note in renew(job, folder):
            say(note)
    return OpenedRun(folder, set_back=stale)


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
    from genrun.runner.job.options import OF_0_1

    if not planned_ids(folder, ())[1]:
        return []
    document = folder.job_document()
    # As it is planned now, as before K followed the mesh, and as before its tolerance was calibrated.
    ways: tuple[tuple[tuple[str, ...], int | None], ...] = (((), None), ((), OF_0_1), (("solver.confidence=0",), None))
    why = "its job.yaml makes other items now, or a calibration does"
    for sets, workers in ways:
        try:
            job = SubmittedJob.of(load(folder.path / "job.yaml", sets, workers=workers), document)
        except JobFileError as error:
            # Of a matrix of solvers the last way is none.
            why = why if sets else str(error).splitlines()[0]
            break
        if is_run_of(job, folder):
            return renew(job, folder)
    raise _hopeless(folder, why)


def _hopeless(folder: RunFolder, why: str) -> DamagedFileError:
    return DamagedFileError(
        f"{folder.path / 'plan.jsonl'}: is damaged, and cannot be written again from job.yaml: {why}.",
        remedy=f"Submit the job file again: genrun submit JOB --run {folder.path}.",
    )
