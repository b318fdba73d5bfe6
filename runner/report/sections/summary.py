"""Summary: a table of the axes of the matrix, what sampling cost, and every metric that has a value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from genrun.adapters.scorers import registry
from genrun.runner import numbers
from genrun.runner.report import charts
from genrun.runner.report.charts import Bar, Scale
from genrun.runner.score.metrics import IS_REFERENCE
from genrun.runner.score.summary import Group, is_solver_axis
from genrun.runner.statistics import Estimate
from genrun.runner.store.records import Record, Score

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem

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
"""Gets columns of its median and largest value: a mean hides the one item that came out wrong."""


@dataclass(frozen=True)
class Heading:
    """A metric as it is known without measuring.

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
        better: "high" or "low", whichever is the better end; "" where there is none.
    """

    title: str
    definition: str
    metric: str = ""
    better: str = ""


@dataclass(frozen=True)
class TableCell:
    """A number in a table.

    Attributes:
        text: the number, or a dash.
        note: its interval, and n where that is not the number of done items.
        sort: the bare number, or None.
        estimate: the mean that it is, or None.
        bar: its interval on the column's scale, or None.
        trend: a small line over the nights, or "".
        is_best: whether no other cell of its column is better, and some are worse.
    """

    text: str
    note: str = ""
    sort: float | None = None
    estimate: Estimate | None = None
    bar: Bar | None = None
    trend: str = ""
    is_best: bool = False


@dataclass(frozen=True)
class GroupRow:
    """A group of items: the labels of its axes, then the cells of the columns."""

    group: Group
    labels: tuple[str, ...]
    cells: tuple[TableCell, ...]


@dataclass(frozen=True)
class SummaryTable:
    """Groups by columns. `axes` are the names of the first columns."""

    axes: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[GroupRow, ...]


COST_COLUMNS = (
    Column("n", "Items done; in brackets those that are planned, when they differ."),
    Column(
        "rounds",
        "Parallel model calls per item (mean): what a sample waits for when every point of a round has its own device.",
        "rounds",
        "low",
    ),
    Column(
        "NFE", "Model evaluations per item (mean), guidance counted once: what a sample costs in total.", "nfe", "low"
    ),
    Column(
        "N / rounds",
        "Speedup in model calls: sequential steps N over rounds, mean over items. Wall time depends on the devices.",
        "speedup",
        "high",
    ),
)

SECONDS = Column(
    "seconds",
    "Wall time per item (mean), on the devices of this run: sampling, decoding and writing; not loading the model.",
    "elapsed_s",
    "low",
)

BLOCKS = Column(
    "blocks",
    "Evaluations of transformer blocks per item (mean), and the share that the cache saved of those of the same items "
    "without a cache, where the run has them.",
)


@dataclass(frozen=True)
class SummarySection:
    """The summary.

    Attributes:
        table: groups by numbers.
        unscored: (metric, reason, how many items), most frequent first.
    """

    table: SummaryTable
    unscored: tuple[tuple[str, str, int], ...]


def headings(scores: Iterable[Score]) -> list[Heading]:
    """Return a heading for every metric and part that has a row, the usual ones first."""
    found = {score.metric: score.higher_is_better for score in scores}
    order = {name: index for index, name in enumerate(METRIC_ORDER)}
    names = sorted(found, key=lambda name: (order.get(name.partition(".")[0], len(order)), name))
    return [_heading(name, found[name]) for name in names]


def collect_unscored(scores: Iterable[Score]) -> tuple[tuple[str, str, int], ...]:
    """Return (metric, reason, how many items) of what was not scored, most frequent first."""
    counts = Counter(
        (score.metric, score.reason or "no reason was recorded")
        for score in scores
        if score.value is None and score.reason != IS_REFERENCE
    )
    return tuple((metric, reason, n) for (metric, reason), n in counts.most_common())


def build_table(
    groups: Sequence[Group],
    metrics: Sequence[Heading],
    trends: Mapping[tuple[str, str], str] | None = None,
    saved: Mapping[str, float] | None = None,
    seconds: Mapping[str, Estimate] | None = None,
) -> SummaryTable:
    """Lay out the summary: a column for each metric with a value, and for its parts where it has none itself.

    Args:
        groups: the summary.
        metrics: every metric with rows.
        trends: (group's label, metric or cost) -> a line over the nights.
        saved: item id -> share of transformer blocks that a cache saved; None where no item has a cache.
        seconds: label of a group -> seconds an item.
    """
    axes = tuple(dict.fromkeys(axis for group in groups for axis in group.axes))
    valued = {name for group in groups for name in group.metrics}
    shown = [
        metric
        for metric in metrics
        if metric.name in valued and metric.name.partition(".")[0] not in valued - {metric.name}
    ]
    columns = (
        *COST_COLUMNS,
        *((SECONDS,) if seconds else ()),
        *(() if saved is None else (BLOCKS,)),
        *_metric_columns(shown),
    )
    cells = _with_bars([_cells(group, shown, saved, seconds) for group in groups])
    cells = _with_best(cells, columns, groups)
    rows = tuple(
        GroupRow(
            group,
            tuple(group.axes.get(axis, numbers.ABSENT) for axis in axes),
            tuple(
                replace(cell, trend=(trends or {}).get((group.label, column.metric), ""))
                for cell, column in zip(row, columns, strict=True)
            ),
        )
        for group, row in zip(groups, cells, strict=True)
    )
    return SummaryTable(axes, columns, rows)


def _with_bars(rows: Sequence[Sequence[TableCell]]) -> list[list[TableCell]]:
    """Draw every interval, on one scale for each column."""
    scales = [
        Scale.over(
            end
            for cell in column
            if (found := cell.estimate) is not None
            for end in (found.mean, found.low, found.high)
            if end is not None
        )
        for column in zip(*rows, strict=True)
    ]
    return [[_with_bar(cell, scale) for cell, scale in zip(row, scales, strict=True)] for row in rows]


def _with_best(
    rows: Sequence[Sequence[TableCell]], columns: Sequence[Column], groups: Sequence[Group]
) -> list[list[TableCell]]:
    """Mark the best of every column that has a better end; those that read the same are all best, and none where all are.

    Solvers are held against those of the same model, and of whatever else the matrix varies.
    """
    places = [
        tuple((axis, label) for axis, label in group.axes.items() if not is_solver_axis(axis)) for group in groups
    ]
    if not any(is_solver_axis(axis) for group in groups for axis in group.axes):
        places = [()] * len(places)
    best: dict[tuple[object, int], str] = {}
    for place in dict.fromkeys(places):
        beside = [row for row, at in zip(rows, places, strict=True) if at == place]
        for at, (column, cells) in enumerate(zip(columns, zip(*beside, strict=True), strict=True)):
            valued = [(cell.sort, cell.text) for cell in cells if cell.sort is not None]
            if column.better and len({text for _, text in valued}) > 1:
                best[place, at] = (max if column.better == "high" else min)(valued, key=lambda pair: pair[0])[1]
    return [
        [replace(cell, is_best=cell.text == best.get((place, at))) for at, cell in enumerate(row)]
        for row, place in zip(rows, places, strict=True)
    ]


def _with_bar(cell: TableCell, scale: Scale) -> TableCell:
    found = cell.estimate
    if found is None or found.low is None or found.low == found.high:
        return cell
    return replace(cell, bar=charts.bar(scale, found.mean, found.low, found.high))


def _metric_columns(metrics: Sequence[Heading]) -> list[Column]:
    columns: list[Column] = []
    for metric in metrics:
        better = "high" if metric.higher_is_better else "low"
        columns.append(Column(metric.title, metric.definition, metric.name, better))
        if metric.name == WITH_SPREAD:
            columns.append(Column("median", f"Median of {metric.title} over items.", "", better))
            columns.append(Column("max", f"Largest {metric.title} of any item.", "", better))
    return columns


def _cells(
    group: Group,
    metrics: Sequence[Heading],
    saved: Mapping[str, float] | None,
    seconds: Mapping[str, Estimate] | None,
) -> list[TableCell]:
    planned = "" if group.done == group.items else f"[{group.items}]"
    cells = [
        TableCell(str(group.done), planned, float(group.done)),
        _cost(group.rounds, numbers.count),
        _cost(group.nfe, numbers.count),
        _cost(group.speedup, numbers.times),
    ]
    if seconds:
        cells.append(_cost(seconds.get(group.label), numbers.number))
    if saved is not None:
        cells.append(_blocks(group, saved))
    for metric in metrics:
        cells += _metric_cells(group, metric)
    return cells


def _cost(estimate: Estimate | None, write: Callable[[float], str]) -> TableCell:
    if estimate is None:
        return TableCell(numbers.ABSENT)
    low, high = estimate.low, estimate.high
    note = "" if low is None or high is None or low == high else f"[{write(low)}, {write(high)}]"
    return TableCell(write(estimate.mean), note, estimate.mean, estimate)


def _blocks(group: Group, saved: Mapping[str, float]) -> TableCell:
    if group.blocks is None:
        return TableCell(numbers.ABSENT)
    shares = [saved[item_id] for item_id in group.item_ids if item_id in saved]
    note = f"{numbers.styled(round(sum(shares) / len(shares), 3), 'share')} saved" if shares else ""
    return TableCell(numbers.count(group.blocks.mean), note, group.blocks.mean)


def _metric_cells(group: Group, metric: Heading) -> list[TableCell]:
    estimate = group.metrics.get(metric.name)
    extra = 2 if metric.name == WITH_SPREAD else 0
    if estimate is None:
        is_baseline = (
            group.is_reference
            and metric.name in registry.names()
            and getattr(registry.get(metric.name), "compares", False)
        )
        return [TableCell("reference" if is_baseline else numbers.ABSENT), *[TableCell(numbers.ABSENT)] * extra]
    notes = [numbers.interval(estimate.low, estimate.high, metric.style)]
    if estimate.n != group.done:
        notes.append(f"n = {estimate.n}")
    note = "\n".join(filter(None, notes))
    cells = [TableCell(numbers.styled(estimate.mean, metric.style), note, estimate.mean, estimate)]
    if extra:
        cells += [TableCell(numbers.number(value), "", value) for value in (estimate.median, estimate.maximum)]
    return cells


def _heading(name: str, higher_is_better: bool) -> Heading:
    base, _, part = name.partition(".")
    if base not in registry.names():
        return Heading(name, name, "A metric of a package that is not installed here.", "number", higher_is_better)
    metric = registry.get(base)
    title = f"{metric.title}: {part}" if part else metric.title
    return Heading(name, title, metric.definition, metric.style, higher_is_better)


def saved_blocks(items: Sequence[WorkItem], records: Mapping[str, Record]) -> dict[str, float]:
    """Return the share of block evaluations that each item's cache saved, by item id, where both counts are known.

    An item is held against that of the same prompt, seed, sampling, solver and attention without a cache; where the run has
    none, against its own evaluations in full. The share is below 0 where a cache made the solver take more rounds than it
    saved.

    Args:
        items: the plan.
        records: by item id.
    """
    samplers = {
        item_id: record.sampler
        for item_id, record in records.items()
        if record.status == "done" and record.sampler is not None and record.sampler.blocks
    }
    plain = {_without_cache(item): samplers[item.id].blocks for item in items if not item.cache and item.id in samplers}
    shares = {}
    for item in items:
        if item.cache and (sampler := samplers.get(item.id)):
            full = plain.get(_without_cache(item)) or sampler.blocks_full
            if full:
                shares[item.id] = 1 - sampler.blocks / full
    return shares


def _without_cache(item: WorkItem) -> tuple[str, str, str]:
    """Return the key that an item shares with one computed in the same way without a cache."""
    return item.pair, repr(sorted(item.solver.items())), item.attention
