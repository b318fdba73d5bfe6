"""Locks of submissions, and who is at work on a run: followers here, workers anywhere, queued jobs."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.errors import StoreError
from genrun.runner.launch.jobs import queues_of
from genrun.runner.store.environment import ProcessName, current, is_gone
from genrun.runner.store.files import NO_LOCKS, write_error
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import holdings, looks_alive
from genrun.runner.store.order import Order, open_items

if TYPE_CHECKING:
    from filelock import BaseFileLock


FILE = ".submit.lock"
SOFT = ".submit.lock.soft"
PATIENCE_S = 1.0
"""Wait of a submission without a word, in seconds."""

POLL_S = 0.1
"""Pause before a lock that another submission holds is tried again, in seconds."""

Say = Callable[[str], None]


@contextlib.contextmanager
def of_job(job_folder: Path, say: Say) -> Iterator[None]:
    """Be the only one who looks for, makes or removes runs of a job; others wait.

    Args:
        job_folder: the folder of the job's runs, which is made, and removed again where no run came into it.
        say: told whom this waits for.

    Raises:
        StoreError: the folder cannot be written.
    """
    with contextlib.ExitStack() as held:
        while True:
            is_new = not job_folder.exists()
            try:
                job_folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise write_error(job_folder, error) from error
            try:
                held.enter_context(_held(job_folder, f"job {job_folder.name!r}", say))
                break
            except StoreError:
                # Whoever made it may have removed it since.
                if job_folder.exists():
                    raise
        if is_new:
            held.callback(_remove_if_empty, job_folder)
        yield


def _remove_if_empty(job_folder: Path) -> None:
    """Remove a folder that holds nothing but the lock, which is held: whoever waits for it sees that its file is gone."""
    with contextlib.suppress(OSError):
        if [path.name for path in job_folder.iterdir()] == [FILE]:
            (job_folder / FILE).unlink()
            job_folder.rmdir()


@contextlib.contextmanager
def of_run(folder: RunFolder, say: Say) -> Iterator[None]:
    """Be the only one who starts workers on a run; others wait. Who needs the job's lock, too, takes that one first.

    Args:
        folder: the run.
        say: told whom this waits for.

    Raises:
        StoreError: the run cannot be written.
    """
    from genrun.runner.store.repair import clear_folders

    for note in clear_folders(folder):
        say(note)
    try:
        folder.leases.mkdir(exist_ok=True)
    except OSError as error:
        raise write_error(folder.leases, error) from error
    with _held(folder.leases, "run", say):
        yield


@contextlib.contextmanager
def _held(folder: Path, what: str, say: Say) -> Iterator[None]:
    from filelock import FileLock

    path = folder / FILE
    try:
        lock = _taken(FileLock(path, poll_interval=POLL_S, fallback_to_soft=False), path, what, say)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise write_error(path, error) from error
        lock = _taken_softly(folder / SOFT, what, say)
    else:
        _sign(path)
    try:
        yield
    finally:
        lock.release()


def _taken(lock: BaseFileLock, path: Path, what: str, say: Say) -> BaseFileLock:
    """Acquire a lock, and tell after a moment whom this waits for."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=PATIENCE_S)
    except Timeout:
        say(f"Waiting for another submit of this {what} ({_holder(path)}).")
        lock.acquire(timeout=-1)
    return lock


def _taken_softly(path: Path, what: str, say: Say) -> BaseFileLock:
    """Acquire a lock on a file system that has none: a file that is there while its owner works.

    One whose owner was killed on this machine is broken; one of another machine has to be removed by hand.
    """
    from filelock import SoftFileLock

    say(
        f"{path.parent}: this file system has no locks. Until its workers are started, {path} keeps other submits out; "
        "remove it if a submit was killed on another machine."
    )
    try:
        return _taken(SoftFileLock(path, poll_interval=POLL_S), path, what, say)
    except OSError as error:
        raise write_error(path, error) from error


def _sign(path: Path) -> None:
    """Write down who holds the lock, for those who wait. Nothing depends on it."""
    with contextlib.suppress(OSError):
        path.write_text(json.dumps(asdict(current())))


def _holder(path: Path) -> str:
    """Name the holder of a lock, as far as its file tells."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "another process"
    try:
        process = ProcessName(**json.loads(text))
    except (ValueError, TypeError):
        # What filelock's own kind of lock says: process, machine, start.
        lines = text.split()
        return f"process {lines[0]} on {lines[1]}" if len(lines) > 1 else "another process"
    return f"process {process.pid} on {process.host}"


SHOWN = 3
"""Processes that a message names."""


def at_work(folder: RunFolder) -> list[ProcessName]:
    """Return the processes at work on a run, except this one: a launch's command, or workers whose launch has none."""
    launches = dict(_launches(folder))
    now = time.time_ns()
    owners = [holding.owner for holding in holdings(folder).values() if looks_alive(holding, now)]
    others = [owner for owner in owners if owner is not None and owner.job.partition(".")[0] not in launches]
    found = [*launches.values(), *(owner.process for owner in others)]
    return [process for process in dict.fromkeys(found) if process != current()]


def is_at_work(folder: RunFolder, environ: Mapping[str, str]) -> bool:
    """Tell whether a worker holds an item of a run, or a job of it waits or works in a queue."""
    # While a queue gives no answer, a run that was ever in it may still be.
    return bool(at_work(folder)) or any(queue.live_jobs or queue.trouble for queue in queues_of(folder, environ))


def told(processes: Sequence[ProcessName]) -> str:
    """Name processes: "process 1234 on node7"."""
    names = [f"process {process.pid} on {process.host}" for process in processes[:SHOWN]]
    return ", ".join(names) + (f" and {len(processes) - SHOWN} more" if len(processes) > SHOWN else "")


def _launches(folder: RunFolder) -> Iterator[tuple[str, ProcessName]]:
    """Yield the launches with work left that a process of this machine follows."""
    for path in folder.logs.glob("*/order.json"):
        with contextlib.suppress(StoreError, TypeError, KeyError):
            order = Order.load(folder, path.parent.name)
            if order.launcher is not None and is_gone(order.launcher) is False and open_items(folder, order):
                yield order.job, order.launcher
