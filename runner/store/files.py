"""Files that are there whole or not at all: temporary name, fsync, rename, fsync of the folder; and reading them.

A temporary file lies beside its target, named `.NAME.TOKEN.tmpSUFFIX`; a process that is killed leaves it behind,
and nothing else. Two processes never share one, so neither can spoil the other's. The token names the process that
writes the file, so that any other can tell whether it was left behind.

Damaged, unreadable and missing files are told apart. A damaged file is made again, and the run goes on. A file that may not
be read may be as good as new: nothing is ever put in its place, and the remedy is to be let in.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from genrun.runner.errors import DamagedFileError, StoreError, UnreadableError
from genrun.runner.store.environment import ProcessName, current, name_of

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

_TEMPORARY = re.compile(
    r"^\..+\.(?:[0-9a-f]{8}|(?P<pid>[0-9a-f]+)-(?P<host>[0-9a-f]{8})-(?P<start>[0-9a-f]{8})-[0-9a-f]{4})"
    r"\.tmp(\.[A-Za-z0-9]+)?(-wal|-shm|-journal)?$"
)

_ELSEWHERE = "write to another folder; runs of a job go where --set output.dir=FOLDER says."
_REMEDIES = {
    errno.ENOSPC: "The disk is full. Free some space, then run the same command again: finished items are kept.",
    errno.EDQUOT: "The disk quota is used up. Free some space, then run the same command again.",
    errno.EFBIG: "The file would exceed the allowed file size (ulimit -f). Raise the limit and run again.",
    errno.EROFS: f"The file system is read-only. Make it writable, or {_ELSEWHERE}",
    errno.EACCES: f"This user may not write there. Change the permissions, or {_ELSEWHERE}",
    errno.EPERM: f"This user may not write there. Change the permissions, or {_ELSEWHERE}",
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
    temporary file is removed, with the folders that were made for it, and `path` stays as it was. What killed processes left
    of the same file is removed, too.

    Raises:
        StoreError: instead of any OSError, also of those raised in the block.
    """
    if not path.name:
        raise StoreError(f"{path}: not the name of a file.", remedy="Name a file.")
    temporary, made, is_done = temporary_name(path), list[Path](), False
    try:
        if is_stream(path):
            said = f"{path}: cannot be written: it is no file, and nothing may take its place."
            raise StoreError(said, remedy="Name a file.")
        if not path.parent.is_dir():
            made += itertools.takewhile(lambda folder: not os.path.lexists(folder), path.parents)
            with contextlib.suppress(FileExistsError):
                path.parent.mkdir(parents=True)
        remove_left_behind(path.parent, f".{path.name}.")
        yield temporary
        sync(temporary)
        temporary.replace(path)
        is_done = True
        sync(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
        for folder in () if is_done else made:
            # Unless somebody else has put anything there.
            with contextlib.suppress(OSError):
                folder.rmdir()


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


NOT_A_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG})
"""Errors of the system where something else lies in a file's place, or nothing."""

WRONG_CONTENT = (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError)
"""Exceptions of parsing content that is not what was written."""

MENDS = "Run the same genrun submit again: it makes that file again, and keeps the old one in damaged/."
BARRED = frozenset({errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EROFS})
"""Errors of the system for files that it does not give, so that it is no fault of the program's."""

_DENIED = (errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def reading(path: Path, *, remedy: str = MENDS) -> Iterator[None]:
    """Tell what is wrong with `path` when the block cannot read it.

    Raises:
        DamagedFileError: it is not there, or does not hold what it should.
        UnreadableError: it may be whole, but this process does not get at it.
    """
    try:
        yield
    except (DamagedFileError, UnreadableError):
        raise
    except OSError as error:
        raise read_error(path, error, remedy=remedy) from error
    except WRONG_CONTENT as error:
        raise DamagedFileError(f"{path}: is damaged: {_summary(error)}.", remedy=remedy) from error


def read_error(path: Path, error: OSError, *, remedy: str = MENDS) -> DamagedFileError | UnreadableError:
    """Say that `path` could not be read, why, and what to do."""
    why = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in NOT_A_FILE:
        return DamagedFileError(f"{path}: is damaged: {why}.", remedy=remedy)
    if error.errno in _DENIED:
        return UnreadableError(f"{path}: cannot be read: {why}.", remedy=_ask_for(path))
    return UnreadableError(
        f"{path}: cannot be read: {why}.",
        remedy="Nothing was changed. When the file system gives it again, run the same command.",
    )


def read_bytes(path: Path) -> bytes:
    """Return the content of an ordinary file.

    Raises:
        OSError: IsADirectoryError, too, for whatever else is no ordinary file; a FIFO is not waited for.
    """
    return read_stamped(os.fspath(path))[0]


def read_stamped(path: str) -> tuple[bytes, os.stat_result]:
    """Return the content of an ordinary file, and its state; see `read_bytes`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        if found.st_mode & 0o170000 != 0o100000:
            raise IsADirectoryError(errno.EISDIR, "not an ordinary file", path)
        data = os.read(descriptor, found.st_size + 1)
        if len(data) != found.st_size:
            # It grows meanwhile, or is too large for one read.
            data += b"".join(iter(lambda: os.read(descriptor, 1 << 20), b""))
        return data, found
    finally:
        os.close(descriptor)


def _summary(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    text = str(error).splitlines()
    return text[0].rstrip(".") if text else type(error).__name__


def _ask_for(path: Path) -> str:
    """Say whose the file or folder is that bars the way, and what lets this user in."""
    barred = next((part for part in (*reversed(path.parents), path) if not _passes(part, is_last=part == path)), path)
    try:
        found = barred.stat()
    except OSError:
        return "Nothing was changed. Ask its owner for read access, then run the same command again."
    mode = f"mode {found.st_mode & 0o7777:04o}"
    if found.st_uid == os.getuid():
        return f"Nothing was changed. {barred} is yours ({mode}). Let yourself in: chmod -R u+rwX {barred}"
    return (
        f"Nothing was changed. {barred} belongs to {_name_of(barred, found.st_uid)} ({mode}). "
        f"Ask the owner for access: chmod -R a+rX {barred}"
    )


def _passes(path: Path, *, is_last: bool) -> bool:
    wanted = os.R_OK if is_last and not path.is_dir() else os.R_OK | os.X_OK if is_last else os.X_OK
    return os.access(path, wanted)


def _name_of(path: Path, uid: int) -> str:
    try:
        return path.owner()
    except (KeyError, OSError):
        return f"user {uid}"
