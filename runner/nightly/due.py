"""Nights of a job: the one that is due, the run of each, and removal of the old ones; what they measured stays."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from genrun.runner.history import LEFT
from genrun.runner.store.files import NO_LOCKS, write_error
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.nights import Night, read_night, write_night
from genrun.runner.store.runs import LATEST, PINNED, runs_of

LOCK = ".nightly.lock"


@dataclass(frozen=True)
class Due:
    """A night that is due.

    Attributes:
        night: its date, "2026-01-31".
        scheduled_at: the moment, ISO 8601 with the local offset.
    """

    night: str
    scheduled_at: str


@dataclass(frozen=True)
class NightRun:
    """A run folder and its night."""

    folder: RunFolder
    night: Night


def due(now: datetime, at: str) -> Due:
    """Return the night that a call at `now` belongs to: that of the last time the clock showed `at`.

    Args:
        now: local time with its offset.
        at: "HH:MM".
    """
    hour, minute = (int(part) for part in at.split(":"))
    scheduled = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if scheduled > now:
        scheduled -= timedelta(days=1)
    return Due(scheduled.date().isoformat(), scheduled.isoformat(timespec="seconds"))


def nights_of(job_folder: Path) -> list[NightRun]:
    """Return the nights of a job whose runs still exist, newest first."""
    found = []
    for path in runs_of(job_folder):
        folder = RunFolder(path.resolve())
        night = read_night(folder.night_path)
        if night is not None:
            found.append(NightRun(folder, night.observed()))
    return sorted(found, key=lambda run: (run.night.night, run.folder.path.name), reverse=True)


def tonight(nights: Sequence[NightRun], night: Due, is_ours: Callable[[RunFolder], bool]) -> NightRun | None:
    """Return the newest run of this night that is the job's, as `is_ours` tells, or None."""
    return next((run for run in nights if run.night.night == night.night and is_ours(run.folder)), None)


def night_before(nights: Sequence[NightRun], night: Due) -> NightRun | None:
    """Return the newest earlier night that came to an end and made something."""
    for run in nights:
        if run.night.night < night.night and run.night.done and run.night.state not in ("running", "interrupted"):
            return run
    return None


@contextlib.contextmanager
def alone(job_folder: Path) -> Iterator[bool]:
    """Hold the lock of a job's nights during the block; yield False when another call holds it already."""
    from filelock import FileLock, Timeout

    path = job_folder / LOCK
    lock, is_alone = FileLock(path, blocking=False, fallback_to_soft=False), True
    try:
        job_folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        is_alone = False
    except OSError as error:
        # Without locks in the file system two calls share the work, as any two workers do.
        if error.errno not in NO_LOCKS:
            raise write_error(path, error) from error
    try:
        yield is_alone
    finally:
        lock.release()


REMOVING = ".removing"
"""Suffix of a run folder that is being removed."""


def old_nights(
    job_folder: Path, keep: int, kept: Collection[Path], is_at_work: Callable[[RunFolder], bool]
) -> list[NightRun]:
    """Return the nights beyond the newest `keep`, oldest last, whose runs nobody needs.

    Args:
        job_folder: the folder of a job's runs.
        keep: dates that are kept.
        kept: run folders that are never removed, beside the pinned and the latest one.
        is_at_work: tells whether somebody works in a run.
    """
    nights = nights_of(job_folder)
    dates = sorted({run.night.night for run in nights}, reverse=True)[:keep]
    needed = {path.resolve() for path in kept} | {(job_folder / name).resolve() for name in (PINNED, LATEST)}
    return [
        run
        for run in nights
        if run.night.night not in dates
        and run.folder.path not in needed
        and run.night.state != "running"
        and not is_at_work(run.folder)
    ]


def remove(run: NightRun) -> Night:
    """Remove the run of a night; its night stays in `NAME/.nights/`. A removal that is cut off is ended by the next.

    Raises:
        StoreError: the job's folder cannot be written.
        OSError: the run cannot be removed.
    """
    job_folder, name = run.folder.path.parent, run.folder.path.name
    night = replace(run.night, is_removed=True)
    write_night(job_folder / LEFT / f"{name}.json", night)
    # First out of sight, in one step: half a run must never look like a run.
    removing = job_folder / f".{name}{REMOVING}"
    run.folder.path.rename(removing)
    shutil.rmtree(removing)
    return night


def finish_removals(job_folder: Path) -> None:
    """Remove the rest of runs whose removal was cut off. Call while no other night of the job is at work."""
    for leftover in job_folder.glob(f".*{REMOVING}"):
        with contextlib.suppress(OSError):
            shutil.rmtree(leftover)


def finish_removals_if_idle(job_folder: Path) -> None:
    """Do the same for other commands than nights, unless a night of the job is at work."""
    if any(job_folder.glob(f".*{REMOVING}")):
        with alone(job_folder) as is_alone:
            if is_alone:
                finish_removals(job_folder)
