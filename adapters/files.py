"""Bounded reads of files that others wrote: regular files within a limit, never a device or a pipe.

The size of a file is known only once it is read: another may be put in its place meanwhile, and files of /proc have none.
So the limit holds for what is read, and a file is opened so that no pipe can keep a command waiting.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

MIB = 2**20
CONFIG_BYTES = 64 * MIB
"""Largest size of a configuration file in bytes; the index of a model's shards counts as one."""

_KINDS = (
    (stat.S_ISDIR, errno.EISDIR, os.strerror(errno.EISDIR)),
    (stat.S_ISFIFO, errno.EINVAL, "it is a pipe, and a file is wanted"),
    (stat.S_ISSOCK, errno.EINVAL, "it is a socket, and a file is wanted"),
    (stat.S_ISCHR, errno.EINVAL, "it is a device, and a file is wanted"),
    (stat.S_ISBLK, errno.EINVAL, "it is a device, and a file is wanted"),
)


class TooLargeError(OSError):
    """A file with more bytes than its reader accepts.

    Attributes:
        size: how many it has, or as many of them as were read.
    """

    def __init__(self, path: Path, size: int, limit: int) -> None:
        super().__init__(errno.EFBIG, f"{size:,} bytes, more than {limit:,}", str(path))
        self.size = size


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading.

    Raises:
        OSError: there is none, it cannot be read, or it is a folder, a device, a pipe or a socket.
    """
    # Checked before, as opening a device can have effects, and after, as it may be another file by then.
    _require_regular(_status(path), path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        _require_regular(os.fstat(descriptor), path)
        yield file


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the whole of a regular file of at most `limit` bytes.

    Raises:
        TooLargeError: it has more; no more than `limit` + 1 bytes were read.
        OSError: as `opened`.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(limit + 1) if size <= limit else b""
    if max(size, len(data)) > limit:
        raise TooLargeError(path, max(size, len(data)), limit)
    return data


def read_json(path: Path, limit: int = CONFIG_BYTES) -> Any:
    """Return the value of a JSON file.

    Raises:
        OSError: as `read_bounded`.
        ValueError: it is no JSON, or nested too deep.
    """
    return parse_json(read_bounded(path, limit))


def parse_json(text: bytes | str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is no JSON, or nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deep") from error


def unusable(path: str | Path) -> str:
    """Return why no file or folder of that name can be looked for, such as "File name too long"; "" where one can."""
    try:
        _status(Path(path))
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        return str(error.strerror)
    return ""


def is_there(path: Path) -> bool:
    """Return whether anything has that name; False also where it cannot be examined, or nothing can have that name."""
    return _has_kind(path, lambda _: True)


def is_file(path: Path) -> bool:
    """Return whether there is a regular file; False also where it cannot be examined, or no file can have that name."""
    return _has_kind(path, stat.S_ISREG)


def is_folder(path: Path) -> bool:
    """Return whether there is a folder; False also where it cannot be examined, or no folder can have that name."""
    return _has_kind(path, stat.S_ISDIR)


def _has_kind(path: Path, kind: Callable[[int], bool]) -> bool:
    try:
        return kind(_status(path).st_mode)
    except OSError:
        return False


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except ValueError as error:  # a NUL, or half of a surrogate pair
        raise OSError(errno.EINVAL, "no file can have that name", str(path)) from error


def _require_regular(status: os.stat_result, path: Path) -> None:
    for is_kind, code, what in _KINDS:
        if is_kind(status.st_mode):
            raise OSError(code, what, str(path))
