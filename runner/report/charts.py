"""Charts as SVG inside the page: the geometry here, the markup in charts.html.j2, the colours in css/charts.css.

Places are in per cent of the drawing, from the left and from the top, and lines keep their width when it is stretched: one
drawing fits every width, is coloured by the page's own style sheet for light and dark, and its text stays text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from genrun.runner import numbers

Place = tuple[float, float]
"""Across and down, in per cent."""

PADDING = 0.08
"""Share of a scale that is left free at each end, so that no mark is cut."""

TICKS = 4
"""Steps of a scale for which a chart of 8 rem has room."""

PLOT_TICKS = 6
"""Steps of a plot of 20 rem: more would run into each other at 400 px."""

SPARK_PADDING = 8.0
"""Per cent above and below a spark line: half of its stroke must not be cut."""

MARKERS = 8
"""Shapes in charts.html.j2. Seven colours and eight shapes tell 56 lines apart."""

COLOURS = 7
"""Colours of css/page.css besides that of the sequential sampler, which is number 0."""

NEAR = 1.0
"""Per cent of a chart within which marks hide each other."""

MOST_TWINS = 3
"""Series that are drawn around one: further ones would be as large as a chart's grid."""

# What labels are laid out for, in px: the plot of a window of 1280 px. A wider one has only more room between them, and
# css/charts.css hides them in a much narrower one, where the legend stands alone.
PLOT_PX = (520.0, 290.0)
LETTER_PX = 7.4
LINE_PX = 15.0
MOST_LETTERS = 40


@dataclass(frozen=True)
class Scale:
    """A range of values, drawn from 0 to 100 per cent; a logarithmic one if `is_log`, whose ends are above 0."""

    low: float
    high: float
    is_log: bool = False

    @classmethod
    def over(cls, values: Iterable[float]) -> Scale:
        """Return a scale that holds these values with some room; around a single value, and 0 to 1 without any."""
        found = list(values)
        if not found:
            return cls(0.0, 1.0)
        low, high = min(found), max(found)
        padding = PADDING * (high - low) or PADDING * abs(high) or PADDING
        return cls(low - padding, high + padding)

    @classmethod
    def around(cls, middle: float, values: Iterable[float]) -> Scale:
        """Return a scale that holds these values and has `middle` at 50 per cent."""
        reach = (1 + PADDING) * max((abs(value - middle) for value in values), default=0.0) or 1.0
        return cls(middle - reach, middle + reach)

    def at(self, value: float) -> float:
        """Place a value, in per cent from the lower end; one beyond the ends is at the nearer end."""
        low, high = self.low, self.high
        if self.is_log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        return round(100 * min(1.0, max(0.0, (value - low) / (high - low))), 2)

    def down(self, value: float) -> float:
        """Place a value on a scale that stands upright, in per cent from the top."""
        return round(100 - self.at(value), 2)

    def ticks(self, style: str = "number", *, most: int = TICKS, whole: bool = False) -> list[tuple[float, str]]:
        """Choose a few round values: (place, how it is written).

        Args:
            style: of the metric.
            most: how many steps at most, of a linear scale.
            whole: take whole numbers only.
        """
        values = _powers(self.low, self.high) if self.is_log else _round_values(self.low, self.high, most, whole)
        return [(self.at(value), _tick(value, style)) for value in values]


def _round_values(low: float, high: float, most: int, whole: bool) -> list[float]:
    least = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(least))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= least * (1 - 1e-9))
    step = max(step, 1.0) if whole else step
    # Ends that are multiples themselves count in spite of rounding.
    return [index * step for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[float]:
    """Return the powers of ten within a range, and 2 and 5 times those where there are fewer than three."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    powers = [value for value in (10.0**exponent for exponent in exponents) if low <= value <= high]
    if len(powers) >= 3:
        return powers
    return [value for e in exponents for factor in (1, 2, 5) if low <= (value := factor * 10.0**e) <= high]


def _tick(value: float, style: str) -> str:
    return numbers.styled(value, style) if style == "share" else f"{value:.3g}".replace("-", "−")


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
        """The width of the interval."""
        return round(self.high - self.low, 2)


def bar(scale: Scale, value: float, low: float | None, high: float | None, mark: float | None = None) -> Bar:
    """Place a value, its interval (if it has one) and a mark."""
    start, end = (value, value) if low is None or high is None else (low, high)
    return Bar(scale.at(value), scale.at(start), scale.at(end), None if mark is None else scale.at(mark))


@dataclass(frozen=True)
class Mark:
    """A point of a series.

    Attributes:
        x, y: where.
        kind: CSS class, such as "mean" or "failed".
        title: shown under the pointer.
        range: (upper, lower) end of its interval, from the top; None without one.
    """

    x: float
    y: float
    kind: str = ""
    title: str = ""
    range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Guide:
    """A line that values are read against, such as a limit: its CSS class, its path, and what it says."""

    kind: str
    path: str
    text: str = ""


@dataclass(frozen=True)
class Series:
    """The part of a plot that belongs to one group of items, all in one colour.

    Attributes:
        label: of the group.
        colour: index of its colour.
        marker: index of the shape of its marks, or None for discs.
        line: a path.
        band: a path around an area.
        marks: its points.
        dots: small points without a title: compact, for thousands of items.
        guides: such as limits of its gates.
        value: its number in the legend.
        twin: how many series before it lie where it does, so that it is drawn around them; 0 for none.
        same_as: "= LABEL" of the first of those, or "≈ LABEL" where only the eye cannot tell them apart; or "".
    """

    label: str
    colour: int
    marker: int | None = None
    line: str = ""
    band: str = ""
    marks: tuple[Mark, ...] = ()
    dots: tuple[Place, ...] = ()
    guides: tuple[Guide, ...] = ()
    value: str = ""
    twin: int = 0
    same_as: str = ""


@dataclass(frozen=True)
class Label:
    """A text beside a point: its place, and from there dx and dy in px."""

    text: str
    colour: int
    x: float
    y: float
    dx: int
    dy: int
    anchor: str


@dataclass(frozen=True)
class Plot:
    """Two axes and what is drawn between them.

    Attributes:
        alt: what it shows, for those who cannot see it.
        series: drawn one over the other.
        y_ticks: (place from the top, text).
        x_ticks: (place from the left, text); none for a chart whose columns are told elsewhere.
        x_title, y_title: of the axes.
        guides: below all series.
        labels: beside points.
        note: what has to be known of its scales, in a sentence.
    """

    alt: str
    series: tuple[Series, ...]
    y_ticks: tuple[tuple[float, str], ...]
    x_ticks: tuple[tuple[float, str], ...] = ()
    x_title: str = ""
    y_title: str = ""
    guides: tuple[Guide, ...] = ()
    labels: tuple[Label, ...] = ()
    note: str = ""


def upright(ticks: Iterable[tuple[float, str]]) -> tuple[tuple[float, str], ...]:
    """Return the ticks of a scale that stands upright, from the top."""
    return tuple((round(100 - place, 2), text) for place, text in ticks)


def line(places: Sequence[Place | None]) -> str:
    """Return an SVG path through places, broken where there is none."""
    return " ".join("M" + " L".join(f"{x:g} {y:g}" for x, y in run) for run in _runs(places))


def band(low: Sequence[Place | None], high: Sequence[Place | None]) -> str:
    """Return an SVG path around what lies between two lines, which have their gaps at the same places."""
    return " ".join(
        "M" + " L".join(f"{x:g} {y:g}" for x, y in [*upper, *reversed(lower)]) + "Z"
        for lower, upper in zip(_runs(low), _runs(high), strict=True)
    )


def _runs(places: Sequence[Place | None]) -> Iterator[list[Place]]:
    for is_gap, run in groupby(places, lambda place: place is None):
        if not is_gap:
            yield [place for place in run if place is not None]


def with_twins(series: Iterable[Series]) -> tuple[Series, ...]:
    """Return the series; those that would hide an earlier one are drawn around it, and say whom they are the same as."""
    found: list[Series] = []
    for each in series:
        near = [other for other in found if _is_near(each, other)]
        if near:
            sign = "=" if _places(near[0]) == _places(each) and near[0].value == each.value else "≈"
            found.append(replace(each, twin=min(len(near), MOST_TWINS), same_as=f"{sign} {near[0].label}"))
        else:
            found.append(each)
    return tuple(found)


def _places(series: Series) -> tuple[object, ...]:
    return (series.line, *((mark.x, mark.y) for mark in series.marks))


def _is_near(one: Series, other: Series) -> bool:
    """Return True when one of two series hides the other: their lines are the same, or their marks lie on each other."""
    if not one.marks or len(one.marks) != len(other.marks):
        return not one.marks and not other.marks and one.line == other.line
    pairs = zip(one.marks, other.marks, strict=True)
    return all(abs(a.x - b.x) < NEAR and abs(a.y - b.y) < NEAR for a, b in pairs)


def label_marks(series: Sequence[Series]) -> tuple[Label, ...]:
    """Place the label of each series beside its first mark; one at the same place as an earlier one shares its label."""
    texts: dict[str, str] = {}
    for each in series:
        first = each.same_as[2:] if each.same_as.startswith("=") else each.label
        texts[first] = f"{texts[first]} = {each.label}" if first in texts else each.label
    shown = [each for each in series if each.label in texts]
    return place_labels([(texts[each.label], each.colour, each.marks[0].x, each.marks[0].y) for each in shown])


def column(index: int, count: int) -> float:
    """Return the middle of one of `count` equal columns, in per cent."""
    return round(100 * (index + 0.5) / count, 2)


def spark(values: Sequence[float | None]) -> str:
    """Return a small line over time, as an SVG path in a square of 100; "" where nothing moves."""
    found = [value for value in values if value is not None]
    if len(set(found)) < 2:
        return ""
    scale, height = Scale(min(found), max(found)), 1 - 2 * SPARK_PADDING / 100
    return line(
        [
            None
            if value is None
            else (column(index, len(values)), round(SPARK_PADDING + height * scale.down(value), 1))
            for index, value in enumerate(values)
        ]
    )


def place_labels(points: Sequence[tuple[str, int, float, float]]) -> tuple[Label, ...]:
    """Place (text, colour, x, y) beside the points, each where it covers no other label or point."""
    width, height = PLOT_PX
    taken = [
        (x * width / 100 - 6, y * height / 100 - 6, x * width / 100 + 6, y * height / 100 + 6) for *_, x, y in points
    ]
    labels = []
    for whole, colour, x, y in points:
        text = whole if len(whole) <= MOST_LETTERS else f"{whole[: MOST_LETTERS - 1]}…"
        candidates = []
        for dx, dy, anchor in (
            (10, -5, "start"),
            (-10, -5, "end"),
            (10, 16, "start"),
            (-10, 16, "end"),
            (10, -22, "start"),
        ):
            left = x * width / 100 + dx - (LETTER_PX * len(text) if anchor == "end" else 0)
            base = y * height / 100 + dy
            candidates.append((dx, dy, anchor, (left, base - LINE_PX, left + LETTER_PX * len(text), base + 4)))
        dx, dy, anchor, box = next((each for each in candidates if _is_free(each[3], taken)), candidates[0])
        taken.append(box)
        labels.append(Label(text, colour, x, y, dx, dy, anchor))
    return tuple(labels)


Box = tuple[float, float, float, float]


def _is_free(box: Box, taken: Sequence[Box]) -> bool:
    if box[0] < 0 or box[1] < -LINE_PX or box[2] > PLOT_PX[0] or box[3] > PLOT_PX[1]:
        return False
    return all(box[2] < other[0] or other[2] < box[0] or box[3] < other[1] or other[3] < box[1] for other in taken)
