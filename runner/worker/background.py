"""A thread for one piece of work at a time: an item's decoding and writing, while the next item is sampled.

A thread of its own and no executor: an executor's threads are joined when the interpreter ends, and work that does not end
would keep a worker alive that was told to stop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

THREAD = "background"

STOP_WAIT_S = 10.0
"""Seconds that a worker that is told to stop waits for its background work: less than its launcher waits for the worker."""

Work = Callable[[], Callable[[], object] | None]
"""Work for the thread; returns what is left to do in the main thread, or None."""


class Background:
    """A thread that does one piece of work at a time; as a context manager it waits for the work at the end."""

    def __init__(self, stop_wait_s: float = STOP_WAIT_S) -> None:
        self._stop_wait_s = stop_wait_s
        self._thread: threading.Thread | None = None
        self._drop: Callable[[], object] | None = None
        self._rest: Callable[[], object] | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
        elif self._thread is not None and self._drop is not None:
            self._thread.join(self._stop_wait_s)
            if self._thread.is_alive() or self._rest is not None:
                self._drop()

    @property
    def is_idle(self) -> bool:
        """True when there is nothing to wait for."""
        return self._thread is None

    def start(self, work: Work, drop: Callable[[], object]) -> None:
        """Begin; wait for the work before.

        Args:
            work: what is done.
            drop: called instead of waiting any longer, when this process is to end and `work` does not.

        Raises:
            Exception: what `wait` raises.
        """
        self.wait()
        self._drop = drop
        self._thread = threading.Thread(target=self._run, args=(work,), name=THREAD, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for the work, and do what it leaves for this thread.

        Raises:
            Exception: what the work raised, or its rest.
        """
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        error, rest = self._error, self._rest
        self._error = self._rest = None
        if error is not None:
            raise error
        if rest is not None:
            rest()

    def _run(self, work: Work) -> None:
        try:
            self._rest = work()
        except BaseException as error:
            self._error = error


def has_dropped_work() -> bool:
    """Return True while work that was dropped still runs in this process: then only `os._exit` ends it safely."""
    return any(thread.name == THREAD for thread in threading.enumerate())
