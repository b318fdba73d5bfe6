"""What a worker writes to its log, and which of it is about one item."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

_ABOUT = re.compile(r"\d\d:\d\d:\d\d ([0-9a-f]{20}): ")


def say(text: str) -> None:
    """Write to the log, in one piece; a disk that is full shows where something has to be kept."""
    try:
        print(f"{time.strftime('%H:%M:%S')} {text}\n", end="", flush=True)
    except OSError:
        return


def section_of(lines: Sequence[str], item_id: str) -> list[str]:
    """Return the lines of a worker's log that are about one item: those that name it, each with what follows it."""
    section: list[str] = []
    is_inside = False
    for line in lines:
        names = _ABOUT.match(line)
        is_inside = names[1] == item_id if names else is_inside
        if is_inside:
            section.append(line)
    return section
