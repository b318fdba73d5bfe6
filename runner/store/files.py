"""Files that are there whole or not at all: temporary name, fsync, rename, fsync of the folder.

A temporary file lies beside its target, named `.NAME.TOKEN.tmpSUFFIX`; a process that is killed leaves it behind,
and nothing else. Two processes never share one, so neither can spoil the other's.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from genrun.runner.errors import StoreError

LOCK = ".lock"
"""Name of the file that `locked` takes in a folder of leases."""

_TEMPORARY = re.compile(r"^\..+\.[0-9a-f]{8}\.tmp(\.[A-Za-z0-9]+)?$")

_REMEDIES = {
    errno.ENOSPC: "The disk is full. Free some space, then run the same command again: finished items are kept.",
    errno.EDQUOT: "The disk quota is used up. Free some space, then run the same command again.",
    errno.EFBIG: "The file would exceed the allowed file size (ulimit -f). Raise the limit and run again.",
    errno.EROFS: "The file system is read-only. Choose another folder: --set output.dir=FOLDER.",
    errno.EACCES: "This user may not write there. Change the permissions, or choose --set output.dir=FOLDER.",
    errno.EPERM: "This user may not write there. Change the permissions, or choose --set output.dir=FOLDER.",
}


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path`, creating its folder; readers see the old content or the new, never a part.

    Raises:
        StoreError: the disk is full, the folder is read-only, or any other failure; nothing is left behind.
    """
    with staged(path) as temporary:
        write_whole(temporary, data)


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Lend a temporary file name beside `path`, with the same suffix; rename it to `path` after the block.

    The file is on the disk (fsync) before it is renamed, and the folder's entry after. If the block raises, the
    temporary file is removed and `path` stays as it was.

    Raises:
        StoreError: instead of any OSError, also of those raised in the block.
    """
    temporary = temporary_name(path)
    try:
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir(parents=True)
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def temporary_name(path: Path) -> Path:
    """Return a new temporary name beside `path`, with the same suffix."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp{path.suffix}")


def is_temporary(name: str) -> bool:
    """Whether a file name is one that `staged` lends."""
    return _TEMPORARY.match(name) is not None


def write_whole(path: Path, data: bytes) -> None:
    """Write all of `data` to a new file.

    Raises:
        OSError: FileExistsError among others.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Force a file or a folder onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock on the file `path`, which is created; the kernel drops it when the process dies.

    On a file system without locks the block runs all the same: leases then rest on exclusive creation alone.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise write_error(path, error) from error
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_error(path: Path, error: OSError) -> StoreError:
    """Say that `path` could not be written, why, and what to do."""
    why = os.strerror(error.errno) if error.errno else str(error)
    return StoreError(f"{path}: cannot be written: {why}.", remedy=_REMEDIES.get(error.errno or 0, ""))
