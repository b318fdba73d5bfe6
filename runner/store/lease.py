"""Leases: workers claim the items that they make, renew their claims, and take over abandoned ones.

A lease is one small file. It is created exclusively, its time stamp is renewed by a thread while its owner lives, and
it is taken over when the owner is provably gone (same machine: no such process), was given up and started again as
the one who asks, or has been silent for longer than `stale_s` (another machine). A worker that was cut off and comes
back next to its successor does no harm: `RunFolder.publish` accepts one result. So leases save work; it is not they that
keep results unique.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.errors import UnreadableError
from genrun.runner.store.environment import ProcessName, is_gone
from genrun.runner.store.files import LOCK, WRONG_CONTENT, locked, read_error, read_stamped, write_error, write_whole
from genrun.runner.strict_json import read_json

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder

BEATS_PER_TERM = 6
"""Renewals within `stale_s`, so that some may be late or lost on a busy file server."""

STALE_S = 120.0
"""Seconds of silence after which a lease of another machine is free: NFS caches times for up to a minute."""

FUTURE_S = 3600.0
"""Seconds by which a file server's clock may be ahead of this machine's for its time stamps to be believed."""

SHOWN = (".progress", ".preview.jpg")
"""Endings of the files beside a lease, `.ITEM` at first, in which its owner shows how far the item is: they go with it."""

AHEAD_S = 60.0
"""Seconds by which a file server's clock has to be ahead of this machine's to be worth a warning."""


@dataclass(frozen=True)
class Owner:
    """Holder of a lease.

    Attributes:
        process: the worker.
        job: the launcher's job id, the task of its array if it has one, and the restart count: "torchrun-1234.0".
        rank: the worker's rank in its job.
    """

    process: ProcessName
    job: str
    rank: int = 0

    def succeeds(self, other: Owner) -> bool:
        """Tell whether this is a restart of the job of `other`, so that `other` has been given up."""
        (name, _, restart), (old_name, _, old_restart) = self.job.rpartition("."), other.job.rpartition(".")
        return name == old_name and restart.isdigit() and old_restart.isdigit() and int(restart) > int(old_restart)


@dataclass(frozen=True)
class Holding:
    """A lease as read from its file.

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
        """Tell whether the lease is still held by this process."""
        holding = read(self._path)
        return holding is not None and holding.owner == self._owner

    def release(self) -> None:
        """Stop renewing, and remove the lease unless it was taken over; also when the worker is stopped meanwhile."""
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
    """The leases of a run, from the point of view of one worker.

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
                _discard(path)
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
        """Return the items with a lease that may not be taken over."""
        with self.folder.lock():
            found = holdings(self.folder)
            return frozenset(item_id for item_id, holding in found.items() if not self.is_abandoned(holding))

    def is_abandoned(self, holding: Holding) -> bool:
        """Tell whether a lease may be taken over. Call while holding the run's lock."""
        if holding.owner is None:
            return True
        gone = is_gone(holding.owner.process)
        if gone is not None:
            return gone
        if self.owner.succeeds(holding.owner):
            return True
        # A stamp of the future says as little as one of long ago: a clock that was set wrong would hold the item for ever.
        return abs(self._server_clock() - holding.beat) > self.stale_s * 1e9

    def sweep(self) -> bool:
        """Remove abandoned leases, and return True when none are left, so that no worker is at work in this run."""
        with self.folder.lock():
            for item_id, holding in holdings(self.folder).items():
                if self.is_abandoned(holding):
                    _discard(self._path(item_id))
            return not holdings(self.folder)

    def _path(self, item_id: str) -> Path:
        return self.folder.leases / item_id

    def _server_clock(self) -> int:
        """Read the clock that stamps leases, in nanoseconds: on a network file system it is not this machine's."""
        clock = self.folder.leases / ".clock"
        clock.touch()
        return clock.stat().st_mtime_ns


def remove_shown(leases: Path, item_id: str) -> None:
    """Remove what is shown of an item in work. Raises OSError."""
    for ending in SHOWN:
        (leases / f".{item_id}{ending}").unlink(missing_ok=True)


def _discard(path: Path) -> None:
    """Remove a lease and what its owner showed, also where an empty folder lies in the lease's place."""
    with contextlib.suppress(OSError):
        remove_shown(path.parent, path.name)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        try:
            path.rmdir()
        except OSError:
            raise write_error(path, error) from error


def looks_alive(holding: Holding, now_ns: int, stale_s: float = STALE_S) -> bool:
    """Tell whether the owner of a lease seems to be alive, as far as that shows without writing anything.

    Args:
        holding: the lease.
        now_ns: this machine's clock, in nanoseconds since 1970.
        stale_s: silence after which an owner on another machine is taken for dead, in seconds.
    """
    if holding.owner is None or is_gone(holding.owner.process):
        return False
    return is_gone(holding.owner.process) is False or -FUTURE_S * 1e9 <= now_ns - holding.beat <= stale_s * 1e9


def is_ahead(holding: Holding, now_ns: int) -> bool:
    """Tell whether a lease's time stamp is further in the future than clocks of machines may differ."""
    return holding.beat - now_ns > AHEAD_S * 1e9


def holdings(folder: RunFolder) -> dict[str, Holding]:
    """Return the leases of a run, by item id."""
    try:
        names = sorted(path.name for path in folder.leases.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise read_error(folder.leases, error) from error
    found = ((name, read(folder.leases / name)) for name in names)
    return {item_id: holding for item_id, holding in found if holding is not None}


def read(path: Path) -> Holding | None:
    """Read a lease, or return None when there is none. One that says nothing has no owner.

    Raises:
        UnreadableError: it may not be looked into.
    """
    try:
        data, found = read_stamped(os.fspath(path))
    except OSError as error:
        told = read_error(path, error)
        if isinstance(told, UnreadableError):
            raise told from error
        return Holding(None, 0) if os.path.lexists(path) else None
    try:
        fields = read_json(data)
        process = ProcessName(**_known(ProcessName, fields["process"]))
        owner = Owner(**{**_known(Owner, fields), "process": process})
        if not _is_owner(owner):
            owner = None
    except WRONG_CONTENT:
        owner = None
    return Holding(owner, found.st_mtime_ns)


def _known(cls: type, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Drop fields that only another version of genrun knows."""
    return {name: value for name, value in fields.items() if name in cls.__dataclass_fields__}


def _is_owner(owner: Owner) -> bool:
    process = owner.process
    texts = (owner.job, process.host, process.boot, process.started)
    numbers = (owner.rank, process.pid)
    return all(isinstance(text, str) for text in texts) and all(type(number) is int for number in numbers)


def _format(owner: Owner) -> bytes:
    return json.dumps(dataclasses.asdict(owner)).encode()
