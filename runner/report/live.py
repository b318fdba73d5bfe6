"""A report that is written again while its run goes on, and what its page asks for meanwhile: how far the items are."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Any

from genrun.runner.errors import GenrunError
from genrun.runner.report.build import build_report
from genrun.runner.store.folder import RunFolder

LOOK_S = 1.0
"""Seconds between two looks at the run folder, at least."""

SHARE = 10
"""Writing the report takes this part of the time at most: of ten thousand items it takes seconds."""

MOST_BYTES = 100
"""Of a file of progress: two numbers."""


class LiveReport:
    """Writes a run's report whenever more of its items have a record, in a thread of its own, until it is stopped.

    Args:
        run: the run.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._ids = [item.id for item in run.items()]
        self._lock = threading.Lock()
        self._done: set[str] = set()
        self._version = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="live-report", daemon=True)

    def __enter__(self) -> LiveReport:
        """Write the report, and go on whenever there is something new."""
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, and leave a report that stands alone."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(GenrunError):
            build_report(self._run)

    def state(self) -> dict[str, Any]:
        """Return {"version": of the report, "items": planned, "recorded": with a record, "work": {id: [front, N]}}."""
        with self._lock:
            recorded, version = set(self._done), self._version
        work = {}
        for item_id in self._in_work():
            with contextlib.suppress(OSError, ValueError):
                front, steps = json.loads(self._run.progress_path(item_id).read_bytes()[:MOST_BYTES])
                if type(front) is type(steps) is int and item_id not in recorded:
                    work[item_id] = [front, steps]
        return {"version": version, "items": len(self._ids), "recorded": len(recorded), "work": work}

    def _in_work(self) -> list[str]:
        planned = set(self._ids)
        names = [path.name for path in self._run.leases.glob(".*.progress")]
        return [item_id for name in names if (item_id := name[1:].removesuffix(".progress")) in planned]

    def _work(self) -> None:
        rest_s = LOOK_S
        while not self._stopped.wait(rest_s):
            started = time.monotonic()
            # A run that is being removed, or a full disk: the page stays as it is.
            with contextlib.suppress(GenrunError, OSError):
                if set(self._run.recorded()) != self._done:
                    self._write()
            rest_s = max(LOOK_S, SHARE * (time.monotonic() - started))

    def _write(self) -> None:
        recorded = set(self._run.recorded())
        build_report(self._run, live=self._version + 1)
        with self._lock:
            self._done, self._version = recorded, self._version + 1
