"""Geometry of the charts that are part of the page: in per cent of the drawing, so that they fit any width.

The templates write it as SVG, and the style sheet colours it, so that one drawing serves light and dark pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from genrun.runner.report import text

Place = tuple[float, float]
"""Across and down, in per cent."""

ROOM = 0.08
"""Share of a scale that is left free at each end."""

TICKS = 4
SPARK_EDGE = 8.0
"""Room that a spark line leaves above and below, in per cent."""


@dataclass(frozen=True)
class Scale:
    """A range of values, drawn from 0 to 100 per cent."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Iterable[float]) -> Scale:
        """A scale that holds these values with some room; around a single value, and 0 to 1 without any."""
        found = list(values)
        if not found:
            return cls(0.0, 1.0)
        low, high = min(found), max(found)
        room = ROOM * (high - low) or ROOM * abs(high) or ROOM
        return cls(low - room, high + room)

    @classmethod
    def around(cls, middle: float, values: Iterable[float]) -> Scale:
        """A scale that holds these values and has `middle` at 50 per cent."""
        reach = (1 + ROOM) * max((abs(value - middle) for value in values), default=0.0) or 1.0
        return cls(middle - reach, middle + reach)

    def at(self, value: float) -> float:
        """Where a value lies, in per cent from the lower end; 0 or 100 for one beyond the ends."""
        return round(100 * min(1.0, max(0.0, (value - self.low) / (self.high - self.low))), 2)

    def ticks(self, style: str) -> list[tuple[float, str]]:
        """A few round values: (place, how it is written)."""
        from matplotlib.ticker import MaxNLocator

        values = MaxNLocator(nbins=TICKS, steps=[1, 2, 5, 10]).tick_values(self.low, self.high)
        return [(self.at(value), _tick(float(value), style)) for value in values if self.low <= value <= self.high]


@dataclass(frozen=True)
class Bar:
    """A value with its interval beside a mark, such as 0 or a limit; in per cent from the left.

    Attributes:
        at: the value.
        low: lower end of its interval; the value itself where there is none.
        high: upper end.
        mark: the mark, or None.
    """

    at: float
    low: float
    high: float
    mark: float | None = None

    @property
    def width(self) -> float:
        """Of the interval."""
        return round(self.high - self.low, 2)


def bar(scale: Scale, value: float, low: float | None, high: float | None, mark: float | None = None) -> Bar:
    """Place a value, its interval (if it has one) and a mark."""
    start, end = (value, value) if low is None or high is None else (low, high)
    return Bar(scale.at(value), scale.at(start), scale.at(end), None if mark is None else scale.at(mark))


def line(places: Sequence[Place | None]) -> str:
    """An SVG path through places, broken where there is none."""
    return " ".join("M" + " L".join(f"{x:g} {y:g}" for x, y in run) for run in _runs(places))


def band(low: Sequence[Place | None], high: Sequence[Place | None]) -> str:
    """An SVG path around what lies between two lines, which have their gaps at the same places."""
    return " ".join(
        "M" + " L".join(f"{x:g} {y:g}" for x, y in [*upper, *reversed(lower)]) + "Z"
        for lower, upper in zip(_runs(low), _runs(high), strict=True)
    )


def across(index: int, count: int) -> float:
    """The middle of one of `count` equal columns, in per cent."""
    return round(100 * (index + 0.5) / count, 2)


def spark(values: Sequence[float | None]) -> str:
    """A small line over time, as an SVG path in a square of 100; "" where nothing moves."""
    found = [value for value in values if value is not None]
    if len(set(found)) < 2:
        return ""
    low, high = min(found), max(found)
    tall = 100 - 2 * SPARK_EDGE

    def place(index: int, value: float) -> Place:
        level = (value - low) / (high - low)
        return across(index, len(values)), round(100 - SPARK_EDGE - level * tall, 1)

    return line([None if value is None else place(index, value) for index, value in enumerate(values)])


def _runs(places: Sequence[Place | None]) -> Iterator[list[Place]]:
    """What lies between gaps."""
    for is_gap, run in groupby(places, lambda place: place is None):
        if not is_gap:
            yield [place for place in run if place is not None]


def _tick(value: float, style: str) -> str:
    return text.styled(value, style) if style == "share" else f"{value:.3g}".replace("-", "−")
