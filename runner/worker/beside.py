"""One piece of work beside the main thread: an item's decoding and writing, while the next item is sampled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

NAME = "beside"

PATIENCE_S = 10.0
"""How long a worker that is told to stop waits for the work beside it, in seconds: less than its launcher waits for it."""

Work = Callable[[], Callable[[], object] | None]
"""What is done beside; returns what is left for the main thread, or None."""


class Beside:
    """At most one piece of work at a time, in a thread of its own. Inside a with block; its end waits for the work."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._thread: threading.Thread | None = None
        self._drop: Callable[[], object] | None = None
        self._rest: Callable[[], object] | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Beside:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
        else:
            self._stop()

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to wait for."""
        return self._thread is None

    def start(self, work: Work, drop: Callable[[], object]) -> None:
        """Begin; waits for the work before.

        Args:
            work: what is done.
            drop: called instead of waiting any longer, when this process is to end and `work` does not.

        Raises:
            Exception: what `wait` raises.
        """
        self.wait()
        self._drop = drop
        self._thread = threading.Thread(target=self._run, args=(work,), name=NAME, daemon=True)
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

    def _stop(self) -> None:
        """Let the work end if it does soon, and drop what is left of it."""
        if self._thread is None or self._drop is None:
            return
        self._thread.join(self._patience_s)
        if self._thread.is_alive() or self._rest is not None:
            self._drop()


def is_lingering() -> bool:
    """Whether work that was dropped still runs in this process: then only `os._exit` ends the process safely."""
    return any(thread.name == NAME for thread in threading.enumerate())
