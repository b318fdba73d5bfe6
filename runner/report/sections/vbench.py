"""VBench: its dimensions as bars, on the range of its leaderboard, beside those of the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genrun.adapters.scorers.vbench.dimensions import ALL
from genrun.runner import numbers
from genrun.runner.report.charts import Scale
from genrun.runner.score.scoring import known_scores
from genrun.runner.score.summary import Group, summarize
from genrun.runner.statistics import Estimate
from genrun.runner.store.folder import RunFolder

PREFIX = "vbench."
WHOLE = Scale(0.0, 1.0)
TOTALS = {"vbench": "total", "vbench.quality": "quality", "vbench.semantic": "semantic"}


@dataclass(frozen=True)
class DimensionBar:
    """A group's number in a dimension.

    Attributes:
        label: of the group.
        colour: index of its colour.
        value: as vbench gives it.
        change: from the baseline, with its sign, or "".
        width: of the bar, in per cent of the dimension's range.
        low, high: of the interval's ends, in per cent; None without one.
        mark: where the baseline's value lies, or None.
    """

    label: str
    colour: int
    value: str
    change: str
    width: float
    low: float | None
    high: float | None
    mark: float | None


@dataclass(frozen=True)
class DimensionRow:
    """A dimension, or a total, and the bars of the groups that have it."""

    title: str
    range: str
    bars: tuple[DimensionBar, ...]


@dataclass(frozen=True)
class VBenchSection:
    """The dimensions of VBench that the run was scored in.

    Attributes:
        sections: (totals, quality, semantic, i2v) -> rows.
        against: what the marks are: a run's name, a group's label, or "".
    """

    sections: tuple[tuple[str, tuple[DimensionRow, ...]], ...]
    against: str


def collect_vbench(groups: Sequence[Group], colours: Mapping[str, int], baseline: str) -> VBenchSection | None:
    """Lay out VBench's dimensions; None when the run has none.

    Args:
        groups: the summary.
        colours: group's label -> index of its colour.
        baseline: folder of the run that this one is held against; "" marks the sequential group's instead.
    """
    if not any(name.partition(".")[0] == "vbench" for group in groups for name in group.metrics):
        return None
    marks, against = _marks_of_run(baseline, groups) if baseline else _marks_of_reference(groups)
    sections = {
        "total": [_row(name, title, WHOLE, groups, colours, marks) for name, title in TOTALS.items()],
        **{
            kind: [
                _row(f"{PREFIX}{name}", name.replace("_", " "), Scale(each.low, each.high), groups, colours, marks)
                for name, each in ALL.items()
                if each.kind == kind
            ]
            for kind in ("quality", "semantic", "i2v")
        },
    }
    shown = {name: tuple(row for row in rows if row.bars) for name, rows in sections.items()}
    return VBenchSection(
        tuple((name, rows) for name, rows in shown.items() if rows), against if any(marks.values()) else ""
    )


Marks = Mapping[str, Mapping[str, Estimate]]
"""Group's label -> metric -> the number it is held against."""


def _marks_of_run(path: str, groups: Sequence[Group]) -> tuple[Marks, str]:
    """Return the numbers of the same cells of another run; all are held against its only cell where it has just one."""
    run = RunFolder.open(Path(path))
    items, records = run.items(), run.records()
    theirs = summarize(items, records, known_scores(run, items, records).scores)
    only = theirs[0].metrics if len(theirs) == 1 else {}
    found = {group.label: group.metrics for group in theirs}
    return {group.label: found.get(group.label, only) for group in groups}, run.path.name


def _marks_of_reference(groups: Sequence[Group]) -> tuple[Marks, str]:
    """Return the numbers of the sequential group, where there is exactly one, and others besides."""
    references = [group for group in groups if group.is_reference]
    if len(references) != 1 or len(groups) == 1:
        return {}, ""
    (reference,) = references
    return {group.label: reference.metrics for group in groups if group is not reference}, reference.label


def _row(
    metric: str, title: str, scale: Scale, groups: Sequence[Group], colours: Mapping[str, int], marks: Marks
) -> DimensionRow:
    bars = [
        _bar(group, colours.get(group.label, 0), scale, group.metrics[metric], marks.get(group.label, {}).get(metric))
        for group in groups
        if metric in group.metrics
    ]
    return DimensionRow(title, f"{scale.low:g} to {scale.high:g}", tuple(bars))


def _bar(group: Group, colour: int, scale: Scale, found: Estimate, mark: Estimate | None) -> DimensionBar:
    ends = (None, None) if found.low is None or found.high is None else (scale.at(found.low), scale.at(found.high))
    difference = None if mark is None else found.mean - mark.mean
    change = "" if difference is None else "=" if difference == 0 else f"{difference:+.3g}".replace("-", "−")
    return DimensionBar(
        label=group.label,
        colour=colour,
        value=numbers.number(found.mean),
        change=change,
        width=scale.at(found.mean),
        low=ends[0],
        high=ends[1],
        mark=None if mark is None else scale.at(mark.mean),
    )
