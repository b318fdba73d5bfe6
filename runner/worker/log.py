"""The log of a rank: lines about items, and the part of a log that is about one of them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

PROGRESS_INTERVAL_S = 10.0
"""Seconds between two lines about an item in work: an item of an hour fills a few hundred lines."""

_ABOUT = re.compile(r"\d\d:\d\d:\d\d ([0-9a-f]{20}): ")


def say(text: str) -> None:
    """Write to the log, in one piece."""
    try:
        print(f"{time.strftime('%H:%M:%S')} {text}\n", end="", flush=True)
    except OSError:
        # A full disk shows where something has to be kept; a log is no reason to fail an item.
        return


def section_of(lines: Sequence[str], item_id: str) -> list[str]:
    """Return the lines of a rank's log that are about one item: those that name it, each with what follows it."""
    section: list[str] = []
    is_inside = False
    for line in lines:
        names = _ABOUT.match(line)
        is_inside = names[1] == item_id if names else is_inside
        if is_inside:
            section.append(line)
    return section


class ProgressLines:
    """Lines about the item in work now and then, with the memory that the rank holds.

    Args:
        item_id: the item in work.
        memory: says what the rank holds.
        interval_s: how often a line is written at most, in seconds.
    """

    def __init__(self, item_id: str, memory: Callable[[], object], interval_s: float = PROGRESS_INTERVAL_S) -> None:
        self._item_id, self._memory, self._interval_s = item_id, memory, interval_s
        self._written_at = time.monotonic()
        self._rounds = 0
        self._steps = ""

    def update(self, front: int, num_steps: int) -> None:
        """Note that `front` of `num_steps` states are final after one more round."""
        self._rounds += 1
        self._steps = f"{front}/{num_steps} steps, {self._rounds} rounds, "
        if time.monotonic() - self._written_at >= self._interval_s:
            self._written_at = time.monotonic()
            self._write()

    def close(self) -> None:
        """Write the item's last line."""
        self._write()

    def _write(self) -> None:
        say(f"{self._item_id}: {self._steps}{self._memory()}")
