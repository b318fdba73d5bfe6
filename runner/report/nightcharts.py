"""A metric over the nights as a chart: a line for each cell of the matrix, its interval, and the limits of its gates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from genrun.runner.job.schema import COSTS
from genrun.runner.report import chart, text
from genrun.runner.report.chart import Place, Scale
from genrun.runner.report.names import RULES, title_of
from genrun.runner.score.metrics import style_of
from genrun.runner.store.nights import CellMean, Night, NightGate

SIGNS = {"max_drop": 1.0, "max_rise": -1.0}
"""With which sign the room that is left of a drop or a rise is taken off a mean to have its limit."""


@dataclass(frozen=True)
class Dot:
    """A night's mean, and what came of the gates on it."""

    x: float
    y: float
    state: str


@dataclass(frozen=True)
class Limit:
    """A gate over the nights: what it says, its path, and whether it moves with the baseline."""

    says: str
    path: str
    is_relative: bool


@dataclass(frozen=True)
class Line:
    """A cell over the nights.

    Attributes:
        label: of the cell.
        colour: index of its colour.
        path: of the means.
        band: around their intervals.
        dots: of the nights with a mean.
        limits: of its gates.
        reads: for each night, its value in words, or "".
    """

    label: str
    colour: int
    path: str
    band: str
    dots: tuple[Dot, ...]
    limits: tuple[Limit, ...]
    reads: tuple[str, ...]


@dataclass(frozen=True)
class Chart:
    """A metric over the nights; places in per cent, those of ticks from the top."""

    metric: str
    title: str
    ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]

    @property
    def is_gated(self) -> bool:
        """Whether any cell has a gate on it."""
        return any(each.limits for each in self.lines)

    @property
    def limits(self) -> list[str]:
        """What its gates say."""
        return list(dict.fromkeys(limit.says for each in self.lines for limit in each.limits))

    @property
    def failed(self) -> int:
        """How many nights and cells failed a gate on it."""
        return sum(dot.state == "failed" for each in self.lines for dot in each.dots)


def metrics_of(nights: Sequence[Night]) -> list[str]:
    """What is worth a chart: metrics with gates, then the others but costs."""
    gated = [each.gate.metric for night in nights for each in night.gates]
    measured = [each.metric for night in nights for each in night.measures if each.value is not None]
    wanted = dict.fromkeys([*gated, *(name for name in measured if name not in COSTS)])
    return [name for name in wanted if name in set(measured)]


def chart_of(metric: str, nights: Sequence[Night], colours: Mapping[str, int]) -> Chart:
    """Draw a metric.

    Args:
        metric: its name.
        nights: oldest first.
        colours: cell -> index of its colour.
    """
    measures = [each for night in nights for each in night.measures if each.metric == metric]
    cells = dict.fromkeys(each.cell for each in measures if each.value is not None)
    scale = Scale.over([*_values(measures), *_limits(metric, nights)])
    lines = tuple(_line(_Series(cell, metric, nights), colours.get(cell, 0), scale) for cell in cells)
    ticks = tuple((round(100 - place, 2), label) for place, label in scale.ticks(style_of(metric)))
    return Chart(metric, title_of(metric), ticks, lines)


def _values(measures: Sequence[CellMean]) -> Iterator[float]:
    for each in measures:
        yield from (value for value in (each.value, each.low, each.high) if value is not None)


def _limits(metric: str, nights: Sequence[Night]) -> Iterator[float]:
    for night in nights:
        found = (limit_of(each, night) for each in night.gates if each.gate.metric == metric)
        yield from (value for value in found if value is not None)


@dataclass(frozen=True)
class _Series:
    """One cell's metric, night by night."""

    cell: str
    metric: str
    nights: Sequence[Night]

    def measures(self) -> list[CellMean | None]:
        return [_measure(night, self.cell, self.metric) for night in self.nights]

    def gates(self, night: Night) -> list[NightGate]:
        return [each for each in night.gates if (each.cell, each.gate.metric) == (self.cell, self.metric)]

    def rules(self) -> list[tuple[str, str]]:
        """(rule, limit as written) of every gate that any night had."""
        return list(dict.fromkeys(_rule(each) for night in self.nights for each in self.gates(night)))

    def limits(self, rule: tuple[str, str]) -> list[float | None]:
        found = ([each for each in self.gates(night) if _rule(each) == rule] for night in self.nights)
        return [limit_of(gates[0], night) if gates else None for gates, night in zip(found, self.nights, strict=True)]

    def state(self, night: Night) -> str:
        states = [each.gate.state for each in self.gates(night)]
        return next((state for state in ("failed", "incomplete") if state in states), "passed")


def _line(series: _Series, colour: int, scale: Scale) -> Line:
    found, count = series.measures(), len(series.nights)

    def places(values: Sequence[float | None]) -> list[Place | None]:
        pairs = enumerate(values)
        return [None if it is None else (chart.across(i, count), round(100 - scale.at(it), 2)) for i, it in pairs]

    whole = [each if each is not None and each.low is not None and each.high is not None else None for each in found]
    means = places([None if each is None else each.value for each in found])
    dots = [
        Dot(*place, series.state(night)) for place, night in zip(means, series.nights, strict=True) if place is not None
    ]
    limits = [
        Limit(f"{RULES[rule[0]]} {rule[1]}", _steps(places(series.limits(rule)), count), rule[0] in SIGNS)
        for rule in series.rules()
    ]
    low, high = ([None if each is None else getattr(each, end) for each in whole] for end in ("low", "high"))
    band, reads = chart.band(places(low), places(high)), tuple(_read(each) for each in found)
    return Line(series.cell, colour, chart.line(means), band, tuple(dots), tuple(limits), reads)


def _measure(night: Night, cell: str, metric: str) -> CellMean | None:
    return next((each for each in night.measures if (each.cell, each.metric) == (cell, metric)), None)


def _rule(each: NightGate) -> tuple[str, str]:
    return each.gate.rule, str(each.gate.limit)


def limit_of(each: NightGate, night: Night) -> float | None:
    """Where a gate's limit lies in the metric's own units.

    That of a drop or a rise lies off the baseline's mean, which is the night's own mean and its drop (or less its rise).
    """
    gate = each.gate
    if gate.rule not in SIGNS:
        return gate.threshold
    measure = _measure(night, each.cell, gate.metric)
    if measure is None or measure.value is None or gate.value is None or gate.threshold is None:
        return None
    return measure.value + SIGNS[gate.rule] * (gate.value - gate.threshold)


def _steps(places: Sequence[Place | None], count: int) -> str:
    """A limit as a line that is level across each night's column."""
    half = 50 / count
    around = [None if place is None else [(place[0] - half, place[1]), (place[0] + half, place[1])] for place in places]
    return chart.line([end for pair in around for end in (pair or [None])])


def _read(measure: CellMean | None) -> str:
    if measure is None or measure.value is None:
        return ""
    style = style_of(measure.metric)
    said = text.styled(measure.value, style)
    if measure.low is not None and measure.high is not None:
        said += f" [{text.styled(measure.low, style)}, {text.styled(measure.high, style)}]"
    return f"{said}, n = {measure.n}"
