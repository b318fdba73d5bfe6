"""How far a run is, while it runs: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.order import Order

PLAIN_INTERVAL_S = 10.0


@dataclass(frozen=True)
class Glimpse:
    """How far a run is at one moment.

    Attributes:
        total: items.
        done: items done.
        failed: items failed.
        made: items finished since the watching began.
        in_work: part of each item in work that is final, 0..1, where it is known.
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
    """Shows glimpses to somebody."""

    def show(self, glimpse: Glimpse) -> None:
        """Show how far the run is."""
        ...

    def close(self, glimpse: Glimpse) -> None:
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
        """Look, and show; do nothing when the last look was so recent that looking would cost a tenth of the time."""
        now = time.monotonic()
        if now < self._rest_until:
            return
        self._settle()
        self._display.show(self._glimpse())
        self._rest_until = time.monotonic() + 10 * (time.monotonic() - now)

    @property
    def is_over(self) -> bool:
        """Whether every item of the order was settled when last looked at."""
        return self._wanted <= self._done | self._failed

    def close(self) -> None:
        """Look for the last time."""
        self._settle()
        self._display.close(self._glimpse())

    def _settle(self) -> None:
        for item_id in list(self._open):
            record = self._folder.record(item_id, check_files=True)
            if record is not None and record.status == "done":
                self._done.add(item_id)
                self._failed.discard(item_id)
            elif self._order.is_settled(item_id, record):
                self._failed.add(item_id)
        self._open = [item_id for item_id in self._open if item_id not in self._done]

    def _glimpse(self) -> Glimpse:
        return Glimpse(
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

    def show(self, glimpse: Glimpse) -> None:
        """Write a line if there is something new and the last line is old enough."""
        counts = (glimpse.done, glimpse.failed)
        if counts != self._shown and glimpse.elapsed_s - self._shown_at >= self._interval_s:
            self._write(glimpse)

    def close(self, glimpse: Glimpse) -> None:
        """Write the last line, unless it was written."""
        if (glimpse.done, glimpse.failed) != self._shown:
            self._write(glimpse)

    def _write(self, glimpse: Glimpse) -> None:
        self._shown, self._shown_at = (glimpse.done, glimpse.failed), glimpse.elapsed_s
        self._say(sentence(glimpse))


class RichDisplay:
    """Draws a bar on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress = Progress(
            BarColumn(), TextColumn("{task.description}", markup=False), console=Console(stderr=True)
        )
        self._task = self._progress.add_task("starting", total=None)
        self._progress.start()

    def show(self, glimpse: Glimpse) -> None:
        """Move the bar; items in work count as far as they are."""
        finished = glimpse.done + glimpse.failed + sum(glimpse.in_work)
        self._progress.update(self._task, total=glimpse.total, completed=finished, description=sentence(glimpse))

    def close(self, glimpse: Glimpse) -> None:
        """Draw the bar for the last time."""
        self.show(glimpse)
        self._progress.stop()


def sentence(glimpse: Glimpse) -> str:
    """Say how far a run is: "3/10 done, 1 failed, 0:01:05 gone, about 0:02:30 left"."""
    text = f"{glimpse.done}/{glimpse.total} done"
    if glimpse.failed:
        text += f", {glimpse.failed} failed"
    text += f", {clock(glimpse.elapsed_s)} gone"
    if glimpse.left_s:
        text += f", about {clock(glimpse.left_s)} left"
    return text


def clock(seconds: float) -> str:
    """Write seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
