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
