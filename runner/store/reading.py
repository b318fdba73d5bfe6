"""Reading the files of a run, with damaged, unreadable and missing files told apart.

A damaged file is made again, and the run goes on. A file that may not be read may be as good as new: nothing is ever put
in its place, and the remedy is to be let in.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from genrun.runner.errors import DamagedFileError, UnreadableError

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
