"""How far the item in work is, for those who look on; and the moments in which they may stop it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path


class Progress:
    """A small file that is only for show: written at most once a second.

    Args:
        path: the file.
        interval_s: how often it is written at most, in seconds.
        check: called as often; may raise to end the item.
    """

    def __init__(self, path: Path, interval_s: float = 1.0, check: Callable[[], None] | None = None) -> None:
        self._path = path
        self._interval_s = interval_s
        self._check = check
        self._told = float("-inf")

    def tell(self, front: int, num_steps: int) -> None:
        """Note that `front` of `num_steps` states are final."""
        if time.monotonic() - self._told >= self._interval_s:
            self._told = time.monotonic()
            with contextlib.suppress(OSError):
                self._path.write_text(json.dumps([front, num_steps]))
            if self._check is not None:
                self._check()

    def close(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


class ProgressLines:
    """A line in a rank's log now and then, with the memory that the rank holds.

    Args:
        item_id: the item in work.
        memory: says what the rank holds.
        say: writes a line.
        interval_s: how often a line is written at most while the item is in work, in seconds.
    """

    def __init__(
        self, item_id: str, memory: Callable[[], str], say: Callable[[str], None], interval_s: float = 10.0
    ) -> None:
        self._item_id, self._memory, self._say, self._interval_s = item_id, memory, say, interval_s
        self._told = time.monotonic()
        self._rounds = 0
        self._steps = ""

    def tell(self, front: int, num_steps: int) -> None:
        """Note that `front` of `num_steps` states are final after one more round."""
        self._rounds += 1
        self._steps = f"{front}/{num_steps} steps, {self._rounds} rounds, "
        if time.monotonic() - self._told >= self._interval_s:
            self._told = time.monotonic()
            self._line()

    def close(self) -> None:
        """Write the item's last line."""
        self._line()

    def _line(self) -> None:
        self._say(f"{self._item_id}: {self._steps}{self._memory()}")
