"""The summary as a table: the axes of the matrix, what sampling cost, and every metric that has a value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from genrun.adapters.scorers import registry
from genrun.runner.report import chart, text
from genrun.runner.report.chart import Bar, Scale
from genrun.runner.score.summary import Group
from genrun.runner.statistics import Estimate
from genrun.runner.store.records import Score

METRIC_ORDER = (
    "latent_rmse",
    "latent_worst_block",
    "psnr",
    "ssim",
    "checker",
    "clip_score",
    "vbench",
    "temporal_flicker",
)
WITH_SPREAD = "latent_rmse"


@dataclass(frozen=True)
class Heading:
    """What is known of a metric without measuring.

    Attributes:
        name: of the metric, or of a part of it (`checker.shape`).
        title: for a column.
        definition: one sentence.
        style: how its values are written.
        higher_is_better: direction.
    """

    name: str
    title: str
    definition: str
    style: str
    higher_is_better: bool


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Attributes:
        title: its heading.
        definition: what it means.
        metric: the metric or cost whose mean it holds, or "".
    """

    title: str
    definition: str
    metric: str = ""


@dataclass(frozen=True)
class Cell:
    """A number in a table.

    Attributes:
        text: the number, or a dash.
        note: its interval, and n where that is not the number of done items.
        sort: the bare number, or None.
        estimate: the mean that it is, or None.
        bar: its interval on the column's scale, or None.
        trend: a small line over the nights, or "".
    """

    text: str
    note: str = ""
    sort: float | None = None
    estimate: Estimate | None = None
    bar: Bar | None = None
    trend: str = ""


@dataclass(frozen=True)
class Row:
    """One group of items: the labels of its axes, then the cells of the columns."""

    group: Group
    labels: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """Groups by columns. `axes` are the names of the first columns."""

    axes: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def headings(scores: Iterable[Score]) -> list[Heading]:
    """Return a heading for every metric and part that has a row, the usual ones first."""
    found = {score.metric: score.higher_is_better for score in scores}
    order = {name: index for index, name in enumerate(METRIC_ORDER)}
    names = sorted(found, key=lambda name: (order.get(name.partition(".")[0], len(order)), name))
    return [_heading(name, found[name]) for name in names]


def build_table(
    groups: Sequence[Group],
    metrics: Sequence[Heading],
    trends: Mapping[tuple[str, str], str] | None = None,
    saved: Mapping[str, float] | None = None,
) -> Table:
    """Lay out the summary: a column for each metric with a value, and for its parts where it has none itself.

    Args:
        groups: the summary.
        metrics: every metric with rows.
        trends: (group's label, metric or cost) -> a line over the nights.
        saved: item id -> share of transformer blocks that a cache saved; None where no item has a cache.
    """
    axes = tuple(dict.fromkeys(axis for group in groups for axis in group.axes))
    valued = {name for group in groups for name in group.metrics}
    shown = [
        metric
        for metric in metrics
        if metric.name in valued and metric.name.partition(".")[0] not in valued - {metric.name}
    ]
    costs = COST_COLUMNS if saved is None else (*COST_COLUMNS, BLOCKS)
    columns = (*costs, *_metric_columns(shown))
    cells = _with_bars([_cells(group, shown, saved) for group in groups])
    rows = tuple(
        Row(
            group,
            tuple(group.axes.get(axis, text.ABSENT) for axis in axes),
            tuple(
                replace(cell, trend=(trends or {}).get((group.label, column.metric), ""))
                for cell, column in zip(row, columns, strict=True)
            ),
        )
        for group, row in zip(groups, cells, strict=True)
    )
    return Table(axes, columns, rows)


def _with_bars(rows: Sequence[Sequence[Cell]]) -> list[list[Cell]]:
    """Give every cell with an interval its picture, on one scale for each column."""
    columns = [[cell.estimate for cell in column] for column in zip(*rows, strict=True)]
    scales = [_scale(column) for column in columns]
    return [[_with_bar(cell, scale) for cell, scale in zip(row, scales, strict=True)] for row in rows]


def _scale(column: Sequence[Estimate | None]) -> Scale:
    found = [each for each in column if each is not None]
    ends = [end for each in found for end in (each.mean, each.low, each.high) if end is not None]
    return Scale.over(ends)


def _with_bar(cell: Cell, scale: Scale) -> Cell:
    found = cell.estimate
    if found is None or found.low is None or found.low == found.high:
        return cell
    return replace(cell, bar=chart.bar(scale, found.mean, found.low, found.high))


COST_COLUMNS = (
    Column("n", "Items done; in brackets those that are planned, when they differ."),
    Column(
        "rounds",
        "Parallel model calls per item (mean): what a sample waits for when every point of a round has its own device.",
        "rounds",
    ),
    Column("NFE", "Model evaluations per item (mean), guidance counted once: what a sample costs in total.", "nfe"),
    Column(
        "N / rounds",
        "Speedup in model calls: sequential steps N over rounds, mean over items. Wall time depends on the devices.",
        "speedup",
    ),
)


BLOCKS = Column(
    "blocks",
    "Evaluations of transformer blocks per item (mean), and the share that the cache saved of those of the same items "
    "without a cache, where the run has them.",
)


def _metric_columns(metrics: Sequence[Heading]) -> list[Column]:
    columns: list[Column] = []
    for metric in metrics:
        columns.append(Column(metric.title, metric.definition, metric.name))
        if metric.name == WITH_SPREAD:
            columns.append(Column("median", f"Median of {metric.title} over items."))
            columns.append(Column("max", f"Largest {metric.title} of any item."))
    return columns


def _cells(group: Group, metrics: Sequence[Heading], saved: Mapping[str, float] | None) -> list[Cell]:
    planned = "" if group.done == group.items else f"[{group.items}]"
    cells = [
        Cell(str(group.done), planned, float(group.done)),
        _cost(group.rounds, text.count),
        _cost(group.nfe, text.count),
        _cost(group.speedup, text.times),
    ]
    if saved is not None:
        cells.append(_blocks(group, saved))
    for metric in metrics:
        cells += _metric_cells(group, metric)
    return cells


def _cost(estimate: Estimate | None, write: Callable[[float], str]) -> Cell:
    if estimate is None:
        return Cell(text.ABSENT)
    low, high = estimate.low, estimate.high
    note = "" if low is None or high is None or low == high else f"[{write(low)}, {write(high)}]"
    return Cell(write(estimate.mean), note, estimate.mean, estimate)


def _blocks(group: Group, saved: Mapping[str, float]) -> Cell:
    if group.blocks is None:
        return Cell(text.ABSENT)
    shares = [saved[item_id] for item_id in group.item_ids if item_id in saved]
    note = f"{text.styled(round(sum(shares) / len(shares), 3), 'share')} saved" if shares else ""
    return Cell(text.count(group.blocks.mean), note, group.blocks.mean)


def _metric_cells(group: Group, metric: Heading) -> list[Cell]:
    estimate = group.metrics.get(metric.name)
    extra = 2 if metric.name == WITH_SPREAD else 0
    if estimate is None:
        return [Cell("reference" if _compared_with(group, metric) else text.ABSENT)] + [Cell(text.ABSENT)] * extra
    notes = [text.interval(estimate, metric.style)]
    if estimate.n != group.done:
        notes.append(f"n = {estimate.n}")
    cells = [Cell(text.styled(estimate.mean, metric.style), "\n".join(filter(None, notes)), estimate.mean, estimate)]
    if extra:
        cells += [Cell(text.number(value), "", value) for value in (estimate.median, estimate.maximum)]
    return cells


def _compared_with(group: Group, metric: Heading) -> bool:
    if not group.is_reference or metric.name not in registry.names():
        return False
    return getattr(registry.get(metric.name), "compares", False)


def _heading(name: str, higher_is_better: bool) -> Heading:
    base, _, part = name.partition(".")
    if base not in registry.names():
        return Heading(name, name, "A metric of a package that is not installed here.", "number", higher_is_better)
    metric = registry.get(base)
    title = f"{metric.title}: {part}" if part else metric.title
    return Heading(name, title, metric.definition, metric.style, higher_is_better)
