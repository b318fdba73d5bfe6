"""Which night it is, and which run is its."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from genrun.runner.history.night import Night, read_night
from genrun.runner.store.files import write_error
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


def tonight(nights: Sequence[Past], what: Due, items: set[str]) -> Past | None:
    """The newest run of this night that has exactly these items, or None."""
    return next(
        (
            past
            for past in nights
            if past.night.night == what.night and {item.id for item in past.folder.items()} == items
        ),
        None,
    )


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
    path = job_folder / LOCK
    try:
        job_folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks: two calls then share the work, as any two workers do
            pass
        yield True
    finally:
        os.close(descriptor)
