"""Files that are there whole or not at all: temporary name, fsync, rename, fsync of the folder.

A temporary file lies beside its target, named `.NAME.TOKEN.tmpSUFFIX`; a process that is killed leaves it behind,
and nothing else. Two processes never share one, so neither can spoil the other's. The token names the process that
writes the file, so that any other can tell whether it was left behind.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from genrun.runner.errors import StoreError
from genrun.runner.store.processes import ProcessName, current, name_of

LOCK = ".lock"
"""Name of the file that `locked` takes in a folder of leases."""

FORGOTTEN_S = 3600.0
"""Age at which a temporary file of another machine's process counts as left behind, in seconds since its last change.

Longer than any one file takes to be written: only its own machine can tell whether a process lives.
"""

NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})
"""Errors of a file system without locks."""

HASHED_AT_ONCE = 1 << 18
"""Bytes that are read before they are hashed; larger pieces are no faster, and leave the processor's cache."""

HASHED_AT_ONCE = 1 << 18
"""Bytes that are read before they are hashed; larger pieces are no faster, and leave the processor's cache."""

_TEMPORARY = re.compile(
    r"^\..+\.(?:[0-9a-f]{8}|(?P<pid>[0-9a-f]+)-(?P<host>[0-9a-f]{8})-(?P<start>[0-9a-f]{8})-[0-9a-f]{4})"
    r"\.tmp(\.[A-Za-z0-9]+)?(-wal|-shm|-journal)?$"
)

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
    if is_stream(path):
        try:
            # Without waiting for whoever might read a pipe.
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC), "wb") as file:
                file.write(data)
        except OSError as error:
            raise write_error(path, error) from error
        return
    with staged(path) as temporary:
        write_whole(temporary, data)


def is_stream(path: Path) -> bool:
    """Tell whether a name is a device, a pipe, a socket or an open file's (/dev/stdout): no file may take its place."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    is_plain = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    return not is_plain or (path.is_symlink() and path.absolute().parts[1:2] in (("dev",), ("proc",)))


@contextlib.contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Lend a temporary file name beside `path`, with the same suffix; rename it to `path` after the block.

    The file is on the disk (fsync) before it is renamed, and the folder's entry after. If the block raises, the
    temporary file is removed and `path` stays as it was. What killed processes left of the same file is removed, too.

    Raises:
        StoreError: instead of any OSError, also of those raised in the block.
    """
    if not path.name:
        raise StoreError(f"{path}: not the name of a file.", remedy="Name a file.")
    temporary = temporary_name(path)
    try:
        if is_stream(path):
            said = f"{path}: cannot be written: it is no file, and nothing may take its place."
            raise StoreError(said, remedy="Name a file.")
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir(parents=True)
        remove_left_behind(path.parent, f".{path.name}.")
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Make a folder of a temporary name beside `path`, lend it, and remove it after the block.

    Raises:
        OSError: it cannot be made.
    """
    remove_left_behind(path.parent, f".{path.name}.")
    folder = temporary_name(path)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def temporary_name(path: Path) -> Path:
    """Return a new temporary name beside `path`, with the same suffix."""
    process = current()
    token = f"{process.pid:x}-{_host(process)}-{_short(process.started)}-{secrets.token_hex(2)}"
    return path.with_name(f".{path.name}.{token}.tmp{path.suffix}")


def is_temporary(name: str) -> bool:
    """Tell whether a file name is one that `staged` lends."""
    return _TEMPORARY.match(name) is not None


def is_left_behind(path: Path, patience_s: float = FORGOTTEN_S) -> bool:
    """Tell whether a temporary file or folder belongs to nobody: its process is gone.

    That is certain for processes of this machine. One of another machine is taken for gone when it has not touched the
    file for `patience_s`. A name without a process is that of an earlier version.
    """
    found = _TEMPORARY.match(path.name)
    if found is None:
        return False
    if found["pid"] is None:
        return True
    now = name_of(int(found["pid"], 16))
    if now.boot and _host(now) == found["host"]:
        return _short(now.started) != found["start"]
    try:
        return time.time() - path.lstat().st_mtime > patience_s
    except OSError:
        return False


def remove_left_behind(folder: Path, prefix: str = ".") -> None:
    """Remove the temporary files and folders in `folder` that belong to nobody and whose names begin so."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and is_left_behind(Path(entry.path)):
                remove(Path(entry.path))


def left_behind_in(folder: Path, held: Collection[str] = (), room: str = "") -> Iterator[Path]:
    """Yield the temporary files and folders below `folder` that belong to nobody.

    Args:
        folder: where to look.
        held: folders in it of which every temporary file is meant, whoever writes it.
        room: the one of them that this is.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name[0] == "." and is_temporary(entry.name):
                if room in held or is_left_behind(Path(entry.path)):
                    yield Path(entry.path)
            elif entry.is_dir(follow_symlinks=False):
                yield from left_behind_in(Path(entry.path), held, room or entry.name)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        path.unlink()


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


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    # Without `hashlib.file_digest` and pathlib, which for a small picture take a fifth of the time.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while data := os.read(descriptor, HASHED_AT_ONCE):
            digest.update(data)
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Force a file or a folder onto the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(path: Path, poll_s: float = 0.005) -> Iterator[None]:
    """Hold an advisory lock on the file `path`; the kernel drops it when the process dies.

    On a file system without locks the block runs all the same: leases then rest on exclusive creation alone.

    Args:
        path: the file, which is created.
        poll_s: how often a lock that another process holds is tried again, in seconds.
    """
    from filelock import FileLock

    lock = FileLock(path, poll_interval=poll_s, fallback_to_soft=False)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(lock)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise write_error(path, error) from error
        yield


def write_error(path: Path, error: OSError) -> StoreError:
    """Say that `path` could not be written, why, and what to do."""
    why = os.strerror(error.errno) if error.errno else str(error)
    return StoreError(f"{path}: cannot be written: {why}.", remedy=_REMEDIES.get(error.errno or 0, ""))


def _host(process: ProcessName) -> str:
    return _short(f"{process.host} {process.boot}")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
