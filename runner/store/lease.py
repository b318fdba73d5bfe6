"""Leases: which worker is making which item.

A lease is one small file. It is created exclusively, its time stamp is renewed by a thread while its owner lives, and
it is taken over when the owner is provably gone (same machine: no such process), was given up and started again as
the one who asks, or is silent for longer than `stale_s` (another machine). A cut-off worker that comes back beside
its successor does no harm: `RunFolder.publish` lets one result in. So leases save work; they are not what keeps
results single.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.store.files import LOCK, locked, write_error, write_whole
from genrun.runner.store.processes import ProcessName, is_gone

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder

BEATS_PER_TERM = 6

STALE_S = 120.0
"""Silence after which a lease of another machine is free, in seconds."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lease.

    Attributes:
        process: the worker.
        job: the launcher's job id, the task of its array if it has one, and the restart count: "torchrun-1234.0".
        rank: the worker's rank in its job.
    """

    process: ProcessName
    job: str
    rank: int = 0

    def succeeds(self, other: Owner) -> bool:
        """Whether this is a later start of what `other` was a start of, so that `other` has been given up."""
        (name, _, restart), (old_name, _, old_restart) = self.job.rpartition("."), other.job.rpartition(".")
        return name == old_name and restart.isdigit() and old_restart.isdigit() and int(restart) > int(old_restart)


@dataclass(frozen=True)
class Holding:
    """A lease as others see it.

    Attributes:
        owner: who holds it, or None when its owner died while writing it.
        beat: when it was last renewed, in nanoseconds of the file server's clock.
    """

    owner: Owner | None
    beat: int


class Lease:
    """A lease that this process holds; renewed by a thread until `release`."""

    def __init__(self, path: Path, owner: Owner, interval_s: float) -> None:
        self._path = path
        self._owner = owner
        self._interval_s = interval_s
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lease-{path.name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def is_ours(self) -> bool:
        """Whether nobody has taken the lease over."""
        holding = read(self._path)
        return holding is not None and holding.owner == self._owner

    def release(self) -> None:
        """Stop renewing, and remove the lease unless it was taken over; also when the worker is told to stop meanwhile."""
        try:
            self._remove()
        except KeyboardInterrupt:
            # Workers are told to stop once, so that this is not cut off again.
            self._remove()
            raise

    def _remove(self) -> None:
        self._released.set()
        self._thread.join()
        with locked(self._path.with_name(LOCK)):
            if self.is_ours():
                self._path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._released.wait(self._interval_s):
            with contextlib.suppress(OSError):
                os.utime(self._path)


@dataclass(frozen=True)
class Leases:
    """The leases of one run, as one worker deals with them.

    Attributes:
        folder: the run.
        owner: this worker.
        stale_s: silence after which a lease of another machine may be taken over, in seconds.
    """

    folder: RunFolder
    owner: Owner
    stale_s: float = STALE_S

    def claim(self, item_id: str) -> Lease | None:
        """Take the lease of an item, or return None while another worker holds it.

        Raises:
            StoreError: the run folder cannot be written.
        """
        path = self._path(item_id)
        with self.folder.lock():
            holding = read(path)
            if holding is not None:
                if not self.is_abandoned(holding):
                    return None
                path.unlink(missing_ok=True)
            try:
                write_whole(path, _format(self.owner))
            except FileExistsError:
                return None
            except OSError as error:
                with contextlib.suppress(OSError):
                    path.unlink()
                raise write_error(path, error) from error
        return Lease(path, self.owner, self.stale_s / BEATS_PER_TERM)

    def holding(self, item_id: str) -> Holding | None:
        """Return who holds an item, or None."""
        return read(self._path(item_id))

    def held(self) -> frozenset[str]:
        """The items that have a lease which is not to be taken over."""
        with self.folder.lock():
            found = holdings(self.folder)
            return frozenset(item_id for item_id, holding in found.items() if not self.is_abandoned(holding))

    def is_abandoned(self, holding: Holding) -> bool:
        """Whether a lease may be taken over. Call while holding the run's lock."""
        if holding.owner is None:
            return True
        gone = is_gone(holding.owner.process)
        if gone is not None:
            return gone
        if self.owner.succeeds(holding.owner):
            return True
        return self._server_clock() - holding.beat > self.stale_s * 1e9

    def sweep(self) -> bool:
        """Remove abandoned leases, and return whether there are none left: nobody works in this run."""
        with self.folder.lock():
            for item_id, holding in holdings(self.folder).items():
                if self.is_abandoned(holding):
                    self._path(item_id).unlink(missing_ok=True)
            return not holdings(self.folder)

    def _path(self, item_id: str) -> Path:
        return self.folder.leases / item_id

    def _server_clock(self) -> int:
        """Read the clock that stamps leases, in nanoseconds: on a network file system it is not this machine's."""
        clock = self.folder.leases / ".clock"
        clock.touch()
        return clock.stat().st_mtime_ns


def looks_alive(holding: Holding, now_ns: int, stale_s: float = STALE_S) -> bool:
    """Whether the owner of a lease seems to be at work, as far as that can be told without writing anything.

    Args:
        holding: the lease.
        now_ns: this machine's clock, in nanoseconds since 1970.
        stale_s: silence after which an owner on another machine is taken for dead, in seconds.
    """
    if holding.owner is None or is_gone(holding.owner.process):
        return False
    return is_gone(holding.owner.process) is False or now_ns - holding.beat <= stale_s * 1e9


def holdings(folder: RunFolder) -> dict[str, Holding]:
    """Return the leases of a run, by item id."""
    paths = sorted(folder.leases.glob("[!.]*"))
    found = ((path.name, read(path)) for path in paths)
    return {item_id: holding for item_id, holding in found if holding is not None}


def read(path: Path) -> Holding | None:
    """Read a lease, or return None when there is none."""
    try:
        text, beat = path.read_text(), path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
    try:
        fields = json.loads(text)
        owner = Owner(**{**fields, "process": ProcessName(**fields["process"])})
    except (ValueError, TypeError, KeyError):
        owner = None
    return Holding(owner, beat)


def _format(owner: Owner) -> bytes:
    return json.dumps(dataclasses.asdict(owner)).encode()
