"""Map a time to the night that is due, and a night to its run; let one call at a time work on a job's nights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from genrun.runner.store.files import NO_LOCKS, write_error
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.nights import Night, read_night
from genrun.runner.store.runs import runs_of

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
