"""Nights: the last nights of a run's job, what came of each, and a chart of every metric over them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from genrun.runner import history, numbers
from genrun.runner.errors import GenrunError
from genrun.runner.job.schema import COSTS
from genrun.runner.report import charts
from genrun.runner.report.charts import Guide, Mark, Place, Plot, Scale, Series
from genrun.runner.report.render import RULES, title_of
from genrun.runner.score.metrics import style_of
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.nights import CellMean, Night, NightGate

SHOWN = 30
"""A month: more columns would be too narrow for a finger at 400 px."""

COMMIT_LETTERS = 8
STATES = ("passed", "failed", "incomplete", "interrupted", "running")
SIGNS = {"max_drop": 1.0, "max_rise": -1.0}
"""The sign with which the room that is left of a drop or a rise is taken off a mean to have its limit."""


@dataclass(frozen=True)
class NightRow:
    """A night in a line.

    Attributes:
        night: its date.
        state: "passed", "failed", "incomplete", "interrupted" or "running".
        commit: git commit, short, with "+" where files were changed; "" when it is not known.
        is_new_commit: whether it is another than the night before's.
        items: "24 of 24".
        gates: how many gates failed or stayed open, or passed.
        marks: late, doubled, interrupted.
        summary: one line.
        href: address of its report, or "".
        is_this: whether it is the run of this page.
        place: the middle of its column in the charts, in per cent.
    """

    night: str
    state: str
    commit: str
    is_new_commit: bool
    items: str
    gates: str
    marks: str
    summary: str
    href: str
    is_this: bool
    place: float


@dataclass(frozen=True)
class NightChart:
    """A metric over the nights.

    Attributes:
        metric: its name.
        title: its heading.
        plot: a line for each cell of the matrix, with its interval and the limits of its gates.
        readings: for each of those lines, its value in words at each night, or "".
    """

    metric: str
    title: str
    plot: Plot
    readings: tuple[tuple[str, ...], ...]

    @property
    def is_gated(self) -> bool:
        """True when any cell has a gate on it."""
        return any(each.guides for each in self.plot.series)

    @property
    def limits(self) -> list[str]:
        """The rules of its gates, such as "at least 30.0"."""
        return list(dict.fromkeys(guide.text for each in self.plot.series for guide in each.guides))

    @property
    def failed(self) -> int:
        """The number of nights and cells that failed a gate on it."""
        return _failed(self.plot.series)


@dataclass(frozen=True)
class NightsSection:
    """The history of the run's job.

    Attributes:
        rows: the nights, oldest first; none for fewer than two.
        charts: those of metrics with gates first.
        trends: (cell, metric) -> a small line over the nights.
        note: why there is nothing to show, or "".
    """

    rows: tuple[NightRow, ...] = ()
    charts: tuple[NightChart, ...] = ()
    trends: Mapping[tuple[str, str], str] = field(default_factory=dict)
    note: str = ""

    @property
    def counts(self) -> list[tuple[str, int]]:
        """(state, how many nights), of states that occur."""
        found = [row.state for row in self.rows]
        return [(state, found.count(state)) for state in STATES if state in found]

    def data(self) -> dict[str, Any]:
        """Return what the script reads out under the pointer."""
        return {
            "x": [row.place for row in self.rows],
            "titles": [" · ".join(filter(None, (row.night, row.state, row.commit, row.marks))) for row in self.rows],
            "values": [shown.readings for shown in self.charts],
        }


def collect_nights(run: RunFolder, colours: Mapping[str, int], *, link: bool = True) -> NightsSection:
    """Read the history of a run's job: the last 30 nights up to that of this run, or up to now when it is no night.

    Args:
        run: the run of the page.
        colours: cell -> index of its colour.
        link: whether the reports of other nights lie where the page can link them.
    """
    job = str(run.job_document().get("name") or run.path.parent.name)
    try:
        nights = history.read(run.path.parent.parent, job)
    except GenrunError as error:
        return NightsSection(note=" ".join(filter(None, (error.message, error.remedy))))
    own = next((index for index, night in enumerate(nights) if night.run == run.path.name), None)
    nights = nights[: None if own is None else own + 1][-SHOWN:]
    if len(nights) < 2:
        return NightsSection()
    return NightsSection(
        rows=tuple(_row(index, nights, run, link) for index in range(len(nights))),
        charts=tuple(_chart(metric, nights, colours) for metric in _charted_metrics(nights)),
        trends=_trends(nights),
    )


def _row(index: int, nights: Sequence[Night], run: RunFolder, link: bool) -> NightRow:
    night, before = nights[index], nights[index - 1] if index else None
    states = [each.gate.state for each in night.gates]
    bad = [f"{states.count(state)} {state}" for state in ("failed", "incomplete") if state in states]
    commit = night.commit or ""
    return NightRow(
        night=night.night,
        state=night.state,
        commit=commit[:COMMIT_LETTERS] + ("+" if commit.endswith("+") else ""),
        is_new_commit=bool(commit) and before is not None and before.commit != commit,
        items=f"{night.done} of {night.items}",
        gates=", ".join(bad) or (f"{len(states)} passed" if states else ""),
        marks=", ".join(night.marks),
        summary=night.summary,
        href=_href(night, run) if link else "",
        is_this=night.run == run.path.name,
        place=charts.column(index, len(nights)),
    )


def _href(night: Night, run: RunFolder) -> str:
    report = run.path.parent / night.run / "report" / "index.html"
    if night.run == run.path.name or night.is_removed or not report.is_file():
        return ""
    return quote(os.path.relpath(report, run.report_dir))


def _trends(nights: Sequence[Night]) -> dict[tuple[str, str], str]:
    tables = [{(each.cell, each.metric): each.value for each in night.measures} for night in nights]
    keys = dict.fromkeys(key for table in tables for key in table)
    return {key: charts.spark([table.get(key) for table in tables]) for key in keys}


# ---- charts ----


def _charted_metrics(nights: Sequence[Night]) -> list[str]:
    """List metrics with gates, then the others but costs."""
    gated = [each.gate.metric for night in nights for each in night.gates]
    measured = [each.metric for night in nights for each in night.measures if each.value is not None]
    wanted = dict.fromkeys([*gated, *(name for name in measured if name not in COSTS)])
    return [name for name in wanted if name in set(measured)]


def _chart(metric: str, nights: Sequence[Night], colours: Mapping[str, int]) -> NightChart:
    measures = [each for night in nights for each in night.measures if each.metric == metric]
    cells = dict.fromkeys(each.cell for each in measures if each.value is not None)
    scale = Scale.over(_heights(metric, nights, measures))
    histories = [_CellHistory(cell, metric, nights) for cell in cells]
    series = tuple(each.series(colours.get(each.cell, 0), scale) for each in histories)
    failed, title = _failed(series), title_of(metric)
    plot = Plot(
        alt=f"{title} over {len(nights)} nights; {failed} {'night' if failed == 1 else 'nights'} beyond a limit",
        series=series,
        y_ticks=charts.upright(scale.ticks(style_of(metric))),
        guides=tuple(
            Guide("commit", charts.line([(left, 0.0), (left, 100.0)]))
            for index, (before, night) in enumerate(pairwise(nights), start=1)
            if night.commit and before.commit != night.commit
            for left in [round(100 * index / len(nights), 2)]
        ),
    )
    return NightChart(metric, title, plot, tuple(each.readings() for each in histories))


def _heights(metric: str, nights: Sequence[Night], measures: Sequence[CellMean]) -> Iterator[float]:
    """Yield all that a chart has to hold: means, ends of their intervals, and limits."""
    for each in measures:
        yield from (value for value in (each.value, each.low, each.high) if value is not None)
    for night in nights:
        limits = (limit_of(each, night) for each in night.gates if each.gate.metric == metric)
        yield from (limit for limit in limits if limit is not None)


def _failed(series: Sequence[Series]) -> int:
    return sum(mark.kind == "failed" for each in series for mark in each.marks)


@dataclass(frozen=True)
class _CellHistory:
    """A metric of one cell, night by night."""

    cell: str
    metric: str
    nights: Sequence[Night]

    def measures(self) -> list[CellMean | None]:
        return [_measure(night, self.cell, self.metric) for night in self.nights]

    def gates(self, night: Night) -> list[NightGate]:
        return [each for each in night.gates if (each.cell, each.gate.metric) == (self.cell, self.metric)]

    def readings(self) -> tuple[str, ...]:
        return tuple(_reading(each) for each in self.measures())

    def series(self, colour: int, scale: Scale) -> Series:
        found, count = self.measures(), len(self.nights)

        def places(values: Sequence[float | None]) -> list[Place | None]:
            pairs = enumerate(values)
            return [None if it is None else (charts.column(i, count), scale.down(it)) for i, it in pairs]

        whole = [None if each is None or each.low is None or each.high is None else each for each in found]
        low, high = ([None if each is None else getattr(each, end) for each in whole] for end in ("low", "high"))
        means = places([None if each is None else each.value for each in found])
        guides = [
            Guide(
                "limit relative" if rule in SIGNS else "limit",
                _steps(places(self.limits(rule, limit)), count),
                f"{RULES[rule]} {limit}",
            )
            for rule, limit in self.rules()
        ]
        return Series(
            self.cell,
            colour,
            line=charts.line(means),
            band=charts.band(places(low), places(high)),
            marks=tuple(
                Mark(*place, self.state(night))
                for place, night in zip(means, self.nights, strict=True)
                if place is not None
            ),
            guides=tuple(guides),
            value=self.readings()[-1] or numbers.ABSENT,
        )

    def rules(self) -> list[tuple[str, str]]:
        """Return (rule, limit as written) of every gate that any night had."""
        gates = (each.gate for night in self.nights for each in self.gates(night))
        return list(dict.fromkeys((gate.rule, str(gate.limit)) for gate in gates))

    def limits(self, rule: str, limit: str) -> list[float | None]:
        return [
            next(
                (
                    limit_of(each, night)
                    for each in self.gates(night)
                    if (each.gate.rule, str(each.gate.limit)) == (rule, limit)
                ),
                None,
            )
            for night in self.nights
        ]

    def state(self, night: Night) -> str:
        states = [each.gate.state for each in self.gates(night)]
        return next((state for state in ("failed", "incomplete") if state in states), "passed")


def _measure(night: Night, cell: str, metric: str) -> CellMean | None:
    return next((each for each in night.measures if (each.cell, each.metric) == (cell, metric)), None)


def limit_of(each: NightGate, night: Night) -> float | None:
    """Return the limit of a gate in the metric's own units.

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
    """Draw a limit as a line that is level across each night's column."""
    half = 50 / count
    around = [None if place is None else [(place[0] - half, place[1]), (place[0] + half, place[1])] for place in places]
    return charts.line([end for pair in around for end in (pair or [None])])


def _reading(measure: CellMean | None) -> str:
    if measure is None or measure.value is None:
        return ""
    style = style_of(measure.metric)
    text = numbers.styled(measure.value, style)
    if measure.low is not None and measure.high is not None:
        text += f" [{numbers.styled(measure.low, style)}, {numbers.styled(measure.high, style)}]"
    return f"{text}, n = {measure.n}"
