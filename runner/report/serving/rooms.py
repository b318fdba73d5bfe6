"""Which files a served report shows, by the addresses that the page uses.

Addresses are paths beside the run's folder: /RUN/report/index.html, /RUN/media/..., /RUN/logs/...; nothing else is shown.
RUN may be another run of the job, since a report leads to those of other nights.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

ROOMS = ("report", "media", "logs")
PLAN = "plan.jsonl"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".pdf": "application/pdf",
}
_TEXT = "text/plain; charset=utf-8"


def find(root: Path, address: str) -> Path | None:
    """Return the file that an address names, or None when it is not one to show.

    Args:
        root: the folder with the runs of a job, without symbolic links.
        address: the path of a URL, beginning with "/", quoted.
    """
    try:
        parts = [unquote(part, errors="strict") for part in address.split("/")[1:]]
    except UnicodeDecodeError:
        return None
    if len(parts) < 3 or parts[1] not in ROOMS or not all(map(_is_plain, parts)):
        return None
    try:
        found = root.joinpath(*parts).resolve(strict=True)
        is_run = (root / parts[0] / PLAN).is_file()
    except (OSError, ValueError, RuntimeError):
        return None
    return found if is_run and found.is_relative_to(root / parts[0] / parts[1]) else None


def content_type(path: Path) -> str:
    """The type of a file by its name; logs and all that is unknown are text."""
    return _TYPES.get(path.suffix.lower(), _TEXT)


def opened(path: Path) -> BinaryIO | None:
    """Open a regular file; None for anything else, such as a pipe, which is not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    return None


def _is_plain(part: str) -> bool:
    """Whether a part of an address names a file or folder in its folder that is not hidden."""
    return bool(part) and not part.startswith(".") and "/" not in part and "\0" not in part
