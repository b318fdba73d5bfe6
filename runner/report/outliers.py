"""The items that stand out: the slowest, and the worst by each metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from genrun.runner.report import text
from genrun.runner.report.chart import Scale
from genrun.runner.report.clips import item_label
from genrun.runner.report.table import Heading
from genrun.runner.score.summary import axes_of
from genrun.runner.store.records import Record, Score

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem

SHOWN = 5
LISTS = 8

Value = tuple["WorkItem", float]


@dataclass(frozen=True)
class Outlier:
    """An item and its number.

    Attributes:
        item_id: the item.
        prompt: its prompt.
        seed: its seed.
        label: of its solver and cache.
        colour: index of that label's colour.
        value: the number, written.
        note: what it is beside the others of its cell, or "".
        place: on the scale of all items, in per cent.
    """

    item_id: str
    prompt: str
    seed: int
    label: str
    colour: int
    value: str
    note: str
    place: float


@dataclass(frozen=True)
class Listing:
    """The first of a ranking.

    Attributes:
        title: "slowest", or "worst by PSNR".
        items: at most five.
        more: how many others have the very same value as the last one shown.
    """

    title: str
    items: tuple[Outlier, ...]
    more: int = 0


def find_outliers(
    items: Sequence[WorkItem],
    records: Mapping[str, Record],
    scores: Sequence[Score],
    metrics: Sequence[Heading],
    colours: Mapping[str, int],
) -> tuple[Listing, ...]:
    """Rank the items that are done; a ranking in which all are equal is left out.

    Args:
        items: the plan.
        records: by item id.
        scores: rows of the metrics.
        metrics: their headings, the most important first.
        colours: solver's label -> index of its colour.
    """
    done = {item.id: item for item in items if item.id in records and records[item.id].status == "done"}
    times = [(item, records[item.id].elapsed_s) for item in done.values() if records[item.id].elapsed_s > 0]
    found = [_listing("slowest", times, lambda value: f"{text.number(value)} s", True, colours, _beside(times))]
    for metric in metrics:
        if "." in metric.name:
            continue
        rows = {score.item_id: score.value for score in scores if score.metric == metric.name}
        values = [(item, value) for item in done.values() if (value := rows.get(item.id)) is not None]
        found.append(
            _listing(f"worst by {metric.title}", values, _writer(metric), not metric.higher_is_better, colours)
        )
    return tuple(each for each in found if each is not None)[:LISTS]


def _listing(
    title: str,
    values: Sequence[Value],
    write: Callable[[float], str],
    largest: bool,
    colours: Mapping[str, int],
    note: Callable[[WorkItem, float], str] = lambda item, value: "",
) -> Listing | None:
    numbers = [value for _, value in values]
    if len(set(numbers)) < 2:
        return None
    ranked = sorted(values, key=lambda pair: -pair[1] if largest else pair[1])
    best = ranked[-1][1]
    ranked = [pair for pair in ranked if pair[1] != best]
    scale = Scale(min(0.0, *numbers), max(numbers))
    shown = ranked[:SHOWN]
    more = sum(value == shown[-1][1] for _, value in ranked[SHOWN:])
    return Listing(title, tuple(_outlier(item, value, write, scale, colours, note) for item, value in shown), more)


def _outlier(
    item: WorkItem,
    value: float,
    write: Callable[[float], str],
    scale: Scale,
    colours: Mapping[str, int],
    note: Callable[[WorkItem, float], str],
) -> Outlier:
    label = item_label(item)
    return Outlier(
        item.id, item.prompt, item.seed, label, colours.get(label, 0), write(value), note(item, value), scale.at(value)
    )


def _beside(times: Sequence[Value]) -> Callable[[WorkItem, float], str]:
    """Says how an item's time compares with its cell's."""
    cells: dict[tuple[str, ...], list[float]] = {}
    for item, elapsed_s in times:
        cells.setdefault(tuple(axes_of(item).values()), []).append(elapsed_s)
    medians = {cell: median(found) for cell, found in cells.items()}

    def note(item: WorkItem, elapsed_s: float) -> str:
        return f"{elapsed_s / medians[tuple(axes_of(item).values())]:.1f}× the median"

    return note


def _writer(metric: Heading) -> Callable[[float], str]:
    return lambda value: text.styled(value, metric.style)
