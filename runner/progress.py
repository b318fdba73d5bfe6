"""Progress of a run: written by its workers, watched by a launcher, shown as a bar on a terminal or as lines elsewhere."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.order import Order

PLAIN_INTERVAL_S = 10.0
"""Seconds between two lines where there is no bar, so that a night's log stays readable."""

FILE_INTERVAL_S = 1.0
"""Seconds between two writes of an item's progress, which is also how soon a cancelled item stops."""


class ProgressFile:
    """A file with the progress of the item in work, for those who look on; its updates are when they may stop the item.

    Args:
        path: the file, which is only for show.
        check: called whenever the file is written; may raise to end the item.
        interval_s: how often it is written at most, in seconds.
    """

    def __init__(
        self, path: Path, check: Callable[[], None] | None = None, interval_s: float = FILE_INTERVAL_S
    ) -> None:
        self._path = path
        self._check = check
        self._interval_s = interval_s
        self._written_at = float("-inf")

    def update(self, front: int, num_steps: int) -> None:
        """Note that `front` of `num_steps` states are final."""
        if time.monotonic() - self._written_at >= self._interval_s:
            self._written_at = time.monotonic()
            with contextlib.suppress(OSError):
                self._path.write_text(json.dumps([front, num_steps]))
            if self._check is not None:
                self._check()


@dataclass(frozen=True)
class Progress:
    """The progress of a run at one moment.

    Attributes:
        total: items.
        done: items done.
        failed: items failed.
        made: items finished since the watching began.
        in_work: the final part of each item in work, 0..1, where it is known.
        elapsed_s: since the watching began, in seconds.
    """

    total: int
    done: int
    failed: int
    made: int
    in_work: tuple[float, ...]
    elapsed_s: float

    @property
    def left_s(self) -> float | None:
        """Seconds until the end at the pace so far, or None before the first item is finished."""
        if not self.made:
            return None
        left = self.total - self.done - self.failed - sum(self.in_work)
        return self.elapsed_s / (self.made + sum(self.in_work)) * max(0.0, left)


class Display(Protocol):
    """A display of the progress of a run."""

    def show(self, progress: Progress) -> None:
        """Show the progress of the run."""
        ...

    def close(self, progress: Progress) -> None:
        """Show the end."""
        ...


class Watcher:
    """Reads a run folder again and again, each record once."""

    def __init__(self, folder: RunFolder, order: Order, display: Display) -> None:
        self._folder = folder
        self._order = order
        self._display = display
        self._started = time.monotonic()
        self._rest_until = self._started
        self._done: set[str] = set()
        self._failed: set[str] = set()
        self._open = [item.id for item in folder.items()]
        self._wanted = set(self._open if order.items is None else order.items)
        self._total = len(self._open)
        self._settle()
        self._before = len(self._done)

    def __call__(self) -> None:
        """Look, and show; do nothing soon after the last look."""
        now = time.monotonic()
        if now < self._rest_until:
            return
        self._settle()
        self._display.show(self._progress())
        # Looking, which reads the records of open items, takes a tenth of the time at most.
        self._rest_until = time.monotonic() + 10 * (time.monotonic() - now)

    @property
    def is_over(self) -> bool:
        """True when every item of the order was settled at the last look."""
        return self._wanted <= self._done | self._failed

    def close(self) -> None:
        """Look for the last time."""
        self._settle()
        self._display.close(self._progress())

    def _settle(self) -> None:
        for item_id in list(self._open):
            record = self._folder.record(item_id, check_files=True)
            if record is not None and record.status == "done":
                self._done.add(item_id)
                self._failed.discard(item_id)
            elif self._order.is_settled(item_id, record):
                self._failed.add(item_id)
        self._open = [item_id for item_id in self._open if item_id not in self._done]

    def _progress(self) -> Progress:
        return Progress(
            self._total,
            len(self._done),
            len(self._failed),
            len(self._done) + len(self._failed) - self._before,
            self._in_work(),
            time.monotonic() - self._started,
        )

    def _in_work(self) -> tuple[float, ...]:
        parts = []
        for item_id in self._open:
            try:
                front, steps = json.loads(self._folder.progress_path(item_id).read_bytes())
            except (OSError, ValueError):
                continue
            parts.append(front / steps)
        return tuple(parts)


class PlainDisplay:
    """Writes a line when items were finished, at most one every ten seconds, and one at the end."""

    def __init__(self, say: Callable[[str], None], interval_s: float = PLAIN_INTERVAL_S) -> None:
        self._say = say
        self._interval_s = interval_s
        self._shown = (-1, -1)
        self._shown_at = float("-inf")

    def show(self, progress: Progress) -> None:
        """Write a line if there is something new and the last line is old enough."""
        counts = (progress.done, progress.failed)
        if counts != self._shown and progress.elapsed_s - self._shown_at >= self._interval_s:
            self._write(progress)

    def close(self, progress: Progress) -> None:
        """Write the last line, unless it was written."""
        if (progress.done, progress.failed) != self._shown:
            self._write(progress)

    def _write(self, progress: Progress) -> None:
        self._shown, self._shown_at = (progress.done, progress.failed), progress.elapsed_s
        self._say(progress_line(progress))


class RichDisplay:
    """Draws a bar on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(BarColumn(), TextColumn("{task.description}", markup=False), console=Console(stderr=True))
        self._task = self._bar.add_task("starting", total=None)
        self._bar.start()

    def show(self, progress: Progress) -> None:
        """Move the bar; an item in work counts by its final part."""
        finished = progress.done + progress.failed + sum(progress.in_work)
        self._bar.update(self._task, total=progress.total, completed=finished, description=progress_line(progress))

    def close(self, progress: Progress) -> None:
        """Draw the bar for the last time."""
        self.show(progress)
        self._bar.stop()


def progress_line(progress: Progress) -> str:
    """Return the progress in one line: "3/10 done, 1 failed, 0:01:05 elapsed, about 0:02:30 left"."""
    text = f"{progress.done}/{progress.total} done"
    if progress.failed:
        text += f", {progress.failed} failed"
    text += f", {clock(progress.elapsed_s)} elapsed"
    if progress.left_s:
        text += f", about {clock(progress.left_s)} left"
    return text


def clock(seconds: float) -> str:
    """Format seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
