"""A report that is written again while its run goes on, and what its page asks for meanwhile: how far the items are."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import zlib
from typing import Any

from genrun.adapters.files import TooLargeError, read_bounded
from genrun.runner.errors import GenrunError
from genrun.runner.report.build import build_report
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.previews import in_work, read_preview, why_none

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
        self._planned = frozenset(item.id for item in run.items())
        self._job = run.job_document()
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
        """Return what the page asks for.

        Returns:
            {"version": of the report, "items": planned, "recorded": with a record, "work": {id: [front, N]},
            "previews": {id: [front when it was drawn, N, a hash of it]}, "why": why items in work have none}.
        """
        with self._lock:
            recorded, version = set(self._done), self._version
        work, previews = {}, {}
        for item_id in sorted(in_work(self._run) & self._planned - recorded):
            with contextlib.suppress(OSError, ValueError, TooLargeError):
                front, steps = json.loads(read_bounded(self._run.progress_path(item_id), MOST_BYTES))
                if type(front) is type(steps) is int:
                    work[item_id] = [front, steps]
            if (preview := read_preview(self._run, item_id)) is not None:
                previews[item_id] = [preview.step, preview.steps, zlib.crc32(preview.data)]
        counts = {"version": version, "items": len(self._planned), "recorded": len(recorded)}
        return {**counts, "work": work, "previews": previews, "why": why_none(self._run, self._job) if work else ""}

    def preview(self, item_id: str) -> bytes | None:
        """Return the preview of an item in work as a JPEG, or None."""
        found = read_preview(self._run, item_id) if item_id in self._planned else None
        return None if found is None else found.data

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
