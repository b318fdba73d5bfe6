"""Which part of a file a request wants, and whether it has it already: RFC 9110, sections 13 and 14."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from typing import Protocol

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.ASCII | re.IGNORECASE)
_TAGS = re.compile(r'(?:W/)?("[^"]*")')
_MOST_DIGITS = 18


class Headers(Protocol):
    """The headers of a request."""

    def get(self, name: str, /) -> str | None:
        """Return the value of a header, or None."""
        ...


@dataclass(frozen=True)
class Version:
    """What tells one content of a file from another.

    Attributes:
        etag: a strong entity tag, with its quotes: changes with size, time in ns, and inode.
        modified: seconds since 1970, whole, as HTTP dates are.
        size_bytes: of the file.
    """

    etag: str
    modified: int
    size_bytes: int

    @classmethod
    def of(cls, status: os.stat_result) -> Version:
        """The version of the file that `status` is of."""
        tag = f'"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"'
        return cls(tag, int(status.st_mtime), status.st_size)

    @property
    def last_modified(self) -> str:
        """The time as an HTTP date."""
        return formatdate(self.modified, usegmt=True)


@dataclass(frozen=True)
class Span:
    """A part of a file: `count` bytes from `first` on."""

    first: int
    count: int

    def content_range(self, size_bytes: int) -> str:
        """The value of Content-Range."""
        return f"bytes {self.first}-{self.first + self.count - 1}/{size_bytes}"


class UnsatisfiableError(ValueError):
    """A range that holds no byte of the file."""


def is_known(headers: Headers, version: Version) -> bool:
    """Whether the client has this very version: If-None-Match, or else If-Modified-Since."""
    tags = headers.get("If-None-Match")
    if tags is not None:
        return tags.strip() == "*" or version.etag in _TAGS.findall(tags)
    since = _seconds(headers.get("If-Modified-Since"))
    return since is not None and version.modified <= since


def wanted_span(headers: Headers, version: Version) -> Span | None:
    """The part that a GET asks for, or None for the whole file.

    A range that is not understood, several ranges, and one whose If-Range names another version, ask for the whole file.

    Args:
        headers: of the request.
        version: of the file.

    Raises:
        UnsatisfiableError: the range begins behind the end of the file, or is empty.
    """
    match = _RANGE.fullmatch(headers.get("Range") or "")
    if match is None or not _is_same(headers.get("If-Range"), version) or max(map(len, match.groups())) > _MOST_DIGITS:
        return None
    first, last, size = match[1], match[2], version.size_bytes
    if not first:
        return _suffix(int(last), size) if last else None
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise UnsatisfiableError
    return Span(int(first), min(int(last) if last else size - 1, size - 1) - int(first) + 1)


def _suffix(count: int, size: int) -> Span:
    count = min(count, size)
    if count == 0:
        raise UnsatisfiableError
    return Span(size - count, count)


def _is_same(condition: str | None, version: Version) -> bool:
    """Whether If-Range is absent or names this version: a strong tag, or its date to the second."""
    if condition is None:
        return True
    condition = condition.strip()
    if condition.startswith(('"', "W/")):
        return condition == version.etag
    return _seconds(condition) == version.modified


def _seconds(date: str | None) -> int | None:
    try:
        return None if date is None else int(parsedate_to_datetime(date).timestamp())
    except (ValueError, OverflowError):
        return None
