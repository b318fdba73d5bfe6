"""Progress of a run: written by its workers, watched by a launcher, shown as a bar on a terminal or as lines elsewhere."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.order import Order

PLAIN_INTERVAL_S = 10.0
"""Seconds between two lines where there is no bar, so that a night's log stays readable."""

FILE_INTERVAL_S = 1.0
"""Seconds between two writes of an item's progress, which is also how soon a cancelled item stops."""

SAMPLED = 0.8
"""Part of an item's time that counts as over once it is sampled: it is decoded and written after that."""

LOADING = "loading the model"
"""Phase of a run before its first item is begun."""


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
        phase: what is done before the first item is begun, such as "loading the model"; "" from then on.
        predicted_s: seconds until the end by the costs of each cell's items; None where only their number is known.
    """

    total: int
    done: int
    failed: int
    made: int
    in_work: tuple[float, ...]
    elapsed_s: float
    phase: str = ""
    predicted_s: float | None = None

    @property
    def left_s(self) -> float | None:
        """Seconds until the end at the pace so far, or None before the first item is finished."""
        if self.predicted_s is not None:
            return self.predicted_s
        if not self.made:
            return None
        left = self.total - self.done - self.failed - sum(self.in_work)
        return self.elapsed_s / (self.made + sum(self.in_work)) * max(0.0, left)


class Pace:
    """Predicts when a run ends: cells cost more or less than others, and only work counts, not the loading before it.

    Args:
        cells: item id -> its cell, whose items cost about the same.
        taken: seconds that items took which were finished before.
    """

    def __init__(self, cells: Mapping[str, object], taken: Mapping[str, float]) -> None:
        self._cells = cells
        self._before = set(taken)
        self._taken = dict(taken)
        self._began: float | None = None
        self._begun_parts: dict[str, float] = {}

    @property
    def has_begun(self) -> bool:
        """True once an item was seen in work or finished."""
        return self._began is not None

    def see(self, now: float, finished: Mapping[str, float], in_work: Mapping[str, float]) -> None:
        """Note what is finished at the time `now`, with the seconds each item took, and the final part of those in work."""
        self._taken |= finished
        if self._began is None and (in_work or self._taken.keys() - self._before):
            self._began, self._begun_parts = now, dict(in_work)

    def left_s(self, now: float, left: Iterable[str], in_work: Mapping[str, float]) -> float | None:
        """Return the seconds until the items `left`, those in work among them, are made; None while nothing tells."""
        made = self._taken.keys() - self._before
        if self._began is None or not made:
            return None
        by_cell: dict[object, list[float]] = {}
        for item_id, seconds in self._taken.items():
            by_cell.setdefault(self._cells.get(item_id), []).append(seconds)
        means = {cell: fmean(each) for cell, each in by_cell.items()}
        # Of a cell that nothing was made of yet, the mean of the others is the best guess.
        usual = fmean(means.values())
        costs = {item_id: means.get(self._cells.get(item_id), usual) for item_id in {*left, *in_work}}
        in_work = {item_id: SAMPLED * part for item_id, part in in_work.items()}
        begun = sum(
            SAMPLED * part * means.get(self._cells.get(each), usual) for each, part in self._begun_parts.items()
        )
        parts = sum(part * costs[item_id] for item_id, part in in_work.items())
        work = sum(self._taken[item_id] for item_id in made) + parts - begun
        if work <= 0:
            return None
        # The last items are made by some of the ranks, and end no sooner than the longest of them.
        longest = max(((1 - in_work.get(item_id, 0.0)) * cost for item_id, cost in costs.items()), default=0.0)
        return max(longest, (now - self._began) * (sum(costs.values()) - parts) / work)


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
        self._seconds: dict[str, float] = {}
        self._open = [item.id for item in folder.items()]
        self._wanted = set(self._open if order.items is None else order.items)
        self._total = len(self._open)
        self._settle()
        self._before = len(self._done)
        self._pace = Pace(
            {item.id: (item.solver["kind"], tuple(item.axes.values())) for item in folder.items()}, dict(self._seconds)
        )

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
                self._seconds[item_id] = record.elapsed_s
            elif self._order.is_settled(item_id, record):
                self._failed.add(item_id)
        self._open = [item_id for item_id in self._open if item_id not in self._done]

    def _progress(self) -> Progress:
        now, in_work = time.monotonic(), self._in_work()
        self._pace.see(now, self._seconds, in_work)
        finished = len(self._done) + len(self._failed)
        is_over = finished >= self._total or self.is_over
        return Progress(
            self._total,
            len(self._done),
            len(self._failed),
            finished - self._before,
            tuple(in_work.values()),
            now - self._started,
            "" if self._pace.has_begun or is_over else LOADING,
            None if is_over else self._pace.left_s(now, (self._wanted & set(self._open)) - self._failed, in_work),
        )

    def _in_work(self) -> dict[str, float]:
        parts = {}
        for item_id in self._open:
            try:
                front, steps = json.loads(self._folder.progress_path(item_id).read_bytes())
                parts[item_id] = min(1.0, front / steps)
            except (OSError, ValueError, TypeError, ArithmeticError):
                continue
        return parts


class PlainDisplay:
    """Writes a line when items were finished, at most one every ten seconds, and one at the end."""

    def __init__(self, say: Callable[[str], None], interval_s: float = PLAIN_INTERVAL_S) -> None:
        self._say = say
        self._interval_s = interval_s
        self._shown = (-1, -1, "")
        self._shown_at = float("-inf")

    def show(self, progress: Progress) -> None:
        """Write a line if there is something new and the last line is old enough."""
        counts = (progress.done, progress.failed, progress.phase)
        if counts != self._shown and progress.elapsed_s - self._shown_at >= self._interval_s:
            self._write(progress)

    def close(self, progress: Progress) -> None:
        """Write the last line, unless it was written."""
        if (progress.done, progress.failed) != self._shown[:2]:
            self._write(progress)

    def _write(self, progress: Progress) -> None:
        self._shown, self._shown_at = (progress.done, progress.failed, progress.phase), progress.elapsed_s
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
    if progress.phase:
        text += f", {progress.phase}"
    text += f", {clock(progress.elapsed_s)} elapsed"
    if progress.left_s:
        text += f", about {clock(progress.left_s)} left"
    return text


def clock(seconds: float) -> str:
    """Format seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
