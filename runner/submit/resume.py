"""Opening the run of a job: an existing one, repaired and brought in line with the job, or a new one with reused results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from genrun.runner.errors import MixError
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.inputs import keep
from genrun.runner.store.output_settings import written_with
from genrun.runner.store.repair import repair
from genrun.runner.store.runs import new_path, point_latest
from genrun.runner.submit.active import at_work
from genrun.runner.submit.lock import Say, of_run
from genrun.runner.submit.match import SubmittedJob, check_same, find_run
from genrun.runner.submit.rebuild import renew
from genrun.runner.submit.reuse import fill
from genrun.runner.submit.stale import SetBack, set_back, stored


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
