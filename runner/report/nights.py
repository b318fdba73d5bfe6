"""The last nights of a run's job: what came of each, beside the charts of what was measured."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from genrun.runner import history
from genrun.runner.errors import GenrunError
from genrun.runner.report import chart
from genrun.runner.report.nightcharts import Chart, chart_of, metrics_of
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.nights import Night

SHOWN = 30
SHORT = 8
STATES = ("passed", "failed", "incomplete", "interrupted", "running")


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
class Nights:
    """What the page shows of the past.

    Attributes:
        rows: the nights, oldest first; none for fewer than two.
        charts: those of metrics with gates first.
        trends: (cell, metric) -> a small line over the nights.
        note: why there is nothing to show, or "".
    """

    rows: tuple[NightRow, ...] = ()
    charts: tuple[Chart, ...] = ()
    trends: Mapping[tuple[str, str], str] = field(default_factory=dict)
    note: str = ""

    @property
    def counts(self) -> list[tuple[str, int]]:
        """(state, how many nights), of states that occur."""
        found = [row.state for row in self.rows]
        return [(state, found.count(state)) for state in STATES if state in found]

    @property
    def cells(self) -> list[tuple[str, int]]:
        """(cell, colour) of every line in the charts."""
        return list(dict.fromkeys((each.label, each.colour) for shown in self.charts for each in shown.lines))

    def data(self) -> dict[str, Any]:
        """What the script reads out under the pointer."""
        return {
            "x": [row.place for row in self.rows],
            "says": [" · ".join(filter(None, (row.night, row.state, row.commit, row.marks))) for row in self.rows],
            "values": [[each.reads for each in shown.lines] for shown in self.charts],
        }


def collect_nights(run: RunFolder, colours: Mapping[str, int], *, link: bool = True) -> Nights:
    """Read the history beside a run: the last 30 nights up to that of this run, or up to now when it is none.

    Args:
        run: the run of the page.
        colours: cell -> index of its colour.
        link: whether the reports of other nights lie where the page can link them.
    """
    job = str(run.job_document().get("name") or run.path.parent.name)
    try:
        nights = history.read(run.path.parent.parent, job)
    except GenrunError as error:
        return Nights(note=" ".join(filter(None, (error.message, error.remedy))))
    own = next((index for index, night in enumerate(nights) if night.run == run.path.name), None)
    nights = nights[: None if own is None else own + 1][-SHOWN:]
    if len(nights) < 2:
        return Nights()
    return Nights(
        rows=tuple(_row(index, nights, run, link) for index in range(len(nights))),
        charts=tuple(chart_of(metric, nights, colours) for metric in metrics_of(nights)),
        trends=_trends(nights),
    )


def _row(index: int, nights: Sequence[Night], run: RunFolder, link: bool) -> NightRow:
    night, before = nights[index], nights[index - 1] if index else None
    states = [each.gate.state for each in night.gates]
    bad = [f"{states.count(state)} {state}" for state in ("failed", "incomplete") if state in states]
    return NightRow(
        night=night.night,
        state=night.state,
        commit=short(night.commit),
        is_new_commit=bool(night.commit) and before is not None and before.commit != night.commit,
        items=f"{night.done} of {night.items}",
        gates=", ".join(bad) or (f"{len(states)} passed" if states else ""),
        marks=", ".join(night.marks),
        summary=night.summary,
        href=_href(night, run) if link else "",
        is_this=night.run == run.path.name,
        place=chart.across(index, len(nights)),
    )


def short(commit: str | None) -> str:
    """A commit as people read it out, with its "+" where files were changed."""
    return "" if not commit else commit[:SHORT] + ("+" if commit.endswith("+") else "")


def _href(night: Night, run: RunFolder) -> str:
    report = run.path.parent / night.run / "report" / "index.html"
    if night.run == run.path.name or night.is_removed or not report.is_file():
        return ""
    return quote(os.path.relpath(report, run.report_dir))


def _trends(nights: Sequence[Night]) -> dict[tuple[str, str], str]:
    tables = [{(each.cell, each.metric): each.value for each in night.measures} for night in nights]
    keys = dict.fromkeys(key for table in tables for key in table)
    return {key: chart.spark([table.get(key) for table in tables]) for key in keys}
