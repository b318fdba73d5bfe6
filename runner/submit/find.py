"""The run that a job belongs to: found by its items, never mixed with others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.errors import MixError
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.runs import new_path, point_latest, runs_of
from genrun.runner.submit.lock import Say, of_run
from genrun.runner.submit.rebuild import is_run_of, renew
from genrun.runner.submit.stale import Mended
from genrun.runner.worker.written import written_with

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.job.schema import JobSpec

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
    for path in runs_of(base / job.spec.name):
        folder = RunFolder.open(path)
        if is_run_of(job, folder):
            return folder
    return None


def check_same(job: Job, folder: RunFolder) -> None:
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


@dataclass(frozen=True)
class Opened:
    """A run that a submission goes on with.

    Attributes:
        folder: the run.
        reused: items that were taken from earlier runs; 0 for a run that was there.
        mended: results that were set back, to be made again.
    """

    folder: RunFolder
    reused: int = 0
    mended: Mended = field(default_factory=Mended)

    def counts(self) -> dict[str, int]:
        """The same as numbers, for scripts."""
        return {"reused": self.reused, "lost": len(self.mended.lost), "rewritten": len(self.mended.outdated)}

    def lines(self, items: int) -> list[str]:
        """Say what was taken over and set back, in a run with so many items."""
        told = self.mended.lines()
        if self.reused:
            told.insert(0, f"{self.reused} reused, {items - self.reused} new.")
        return [f"{self.folder.path}: {line}" for line in told]


def open_run(
    job: Job,
    base: Path,
    run: RunFolder | None,
    *,
    fresh: bool = False,
    is_at_work: Callable[[RunFolder], bool] = lambda folder: False,
    say: Say = lambda text: None,
) -> Opened:
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


def _make(job: Job, base: Path, *, fresh: bool) -> Opened:
    from genrun.runner.submit.reuse import fill

    job_folder, counts = base / job.spec.name, [0]

    def take(new: RunFolder) -> None:
        counts.append(0 if fresh else fill(new, job, job_folder))

    folder = RunFolder.create(new_path(base, job.spec.name), job.document, job.items, take)
    return Opened(folder, counts[-1])


def take_up(job: Job, folder: RunFolder, is_at_work: Callable[[RunFolder], bool], say: Say) -> Opened:
    """Let a run follow a job whose items are the same: results first, so that job.yaml never says what they are not.

    Raises:
        MixError: media of the run cannot be written as the job says.
        StoreError: the run cannot be read or written.
    """
    from genrun.runner.store.repair import mend
    from genrun.runner.submit.active import at_work
    from genrun.runner.submit.stale import set_back, stored

    with of_run(folder, say):
        if written_with(stored(folder, job.document)) != written_with(job.document) and is_at_work(folder):
            raise MixError(
                f"{folder.path}: workers are making files with the old values of `output`.",
                remedy="Wait for them, or stop them: genrun cancel. Then submit again.",
            )
        # Whether tasks wait in a queue does not matter here: only who holds an item may have a file half written.
        for note in () if at_work(folder) else mend(folder):
            say(note)
        mended = set_back(folder, job.items, job.document)
        for note in renew(job, folder):
            say(note)
    return Opened(folder, mended=mended)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {field: leaf for key, inner in value.items() for field, leaf in _flat(inner, f"{path}.{key}").items()}
    return {path.removeprefix("."): value}
