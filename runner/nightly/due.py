"""Which night it is, and which run is its."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from genrun.runner.history.night import Night, read_night
from genrun.runner.store.files import NO_LOCKS, write_error
from genrun.runner.store.folder import RunFolder
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
class Past:
    """A run that was a night."""

    folder: RunFolder
    night: Night


def due(now: datetime, at: str) -> Due:
    """The night that a call at `now` belongs to: that of the last time the clock showed `at`.

    Args:
        now: local time with its offset.
        at: "HH:MM".
    """
    hour, minute = (int(part) for part in at.split(":"))
    scheduled = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    if scheduled > now:
        scheduled -= timedelta(days=1)
    return Due(scheduled.date().isoformat(), scheduled.isoformat(timespec="seconds"))


def nights_of(job_folder: Path) -> list[Past]:
    """The nights of a job whose runs are there, newest first."""
    found = []
    for path in runs_of(job_folder):
        folder = RunFolder(path.resolve())
        night = read_night(folder.night_path)
        if night is not None:
            found.append(Past(folder, night.observed()))
    return sorted(found, key=lambda past: (past.night.night, past.folder.path.name), reverse=True)


def tonight(nights: Sequence[Past], what: Due, is_ours: Callable[[RunFolder], bool]) -> Past | None:
    """The newest run of this night that is the job's, as `is_ours` tells, or None."""
    return next((past for past in nights if past.night.night == what.night and is_ours(past.folder)), None)


def night_before(nights: Sequence[Past], what: Due) -> Past | None:
    """The newest earlier night that came to an end and made something."""
    return next(
        (
            past
            for past in nights
            if past.night.night < what.night and past.night.done and past.night.state not in ("running", "interrupted")
        ),
        None,
    )


@contextlib.contextmanager
def alone(job_folder: Path) -> Iterator[bool]:
    """Whether no other call works on this job's nights; while the block runs, none will."""
    from filelock import FileLock, Timeout

    path = job_folder / LOCK
    lock, is_alone = FileLock(path, blocking=False, fallback_to_soft=False), True
    try:
        job_folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        is_alone = False
    except OSError as error:
        # On a file system without locks two calls share the work, as any two workers do.
        if error.errno not in NO_LOCKS:
            raise write_error(path, error) from error
    try:
        yield is_alone
    finally:
        lock.release()
