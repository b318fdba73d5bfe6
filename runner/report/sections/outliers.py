"""Items to look at: those that failed, those not quite as asked for, the slowest, and the worst by each metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING

from genrun.runner import numbers
from genrun.runner.notes import NoteKind, group_notes
from genrun.runner.report.charts import Scale
from genrun.runner.report.render import MOST_MESSAGE_LETTERS, RUN_ROOT, address, cut
from genrun.runner.report.sections.clips import describe, item_label
from genrun.runner.report.sections.summary import Heading
from genrun.runner.score.summary import axes_of
from genrun.runner.store.records import Record, Score

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem


MOST_FAILURES = 100
"""Failed items that are told in full: thousands would make a page that is slow to open."""


@dataclass(frozen=True)
class FailedItem:
    """An item that failed.

    Attributes:
        item_id: the item.
        prompt: its prompt.
        where: seed, solver and other axes.
        kind: of the error.
        message: what failed.
        remedy: what to do, or "".
        log: path of the log relative to the run folder, or "".
        log_href: its address on the page, or "".
        attempt: how often it was tried.
    """

    item_id: str
    prompt: str
    where: str
    kind: str
    message: str
    remedy: str
    log: str
    log_href: str
    attempt: int


def collect_failures(
    items: Sequence[WorkItem], records: Mapping[str, Record], *, link_logs: bool
) -> tuple[FailedItem, ...]:
    """Return the first of the failed items.

    Args:
        items: the plan.
        records: by item id.
        link_logs: whether logs lie where the page can link them.
    """
    failed = ((item, record) for item in items if (record := records.get(item.id)) and record.status == "failed")
    return tuple(_failure(item, record, link_logs) for item, record in islice(failed, MOST_FAILURES))


def _failure(item: WorkItem, record: Record, link_logs: bool) -> FailedItem:
    error = record.error or {}
    log = str(error.get("log") or "")
    return FailedItem(
        item_id=item.id,
        prompt=item.prompt,
        where=describe(item),
        kind=str(error.get("kind") or "error"),
        message=cut(str(error.get("message") or "no message was recorded"), MOST_MESSAGE_LETTERS),
        remedy=str(error.get("remedy") or ""),
        log=log,
        log_href=address(log, RUN_ROOT) if log and link_logs else "",
        attempt=record.attempt,
    )


MOST_NOTED = 20
"""Items with a note of one kind that are listed: at its clip each item has its own."""


@dataclass(frozen=True)
class NotedItem:
    """An item that is done, and what has to be told about it.

    Attributes:
        item_id: the item.
        prompt: its prompt.
        where: seed, solver and other axes.
        message: what is so.
    """

    item_id: str
    prompt: str
    where: str
    message: str


@dataclass(frozen=True)
class Notes:
    """The notes of one kind.

    Attributes:
        about: what the kind means, and what to do.
        items: the first of the items.
        count: how many items there are.
    """

    about: NoteKind
    items: tuple[NotedItem, ...]
    count: int


def collect_notes(items: Sequence[WorkItem], records: Mapping[str, Record]) -> tuple[Notes, ...]:
    """Return what has to be told about done items, by kind.

    Args:
        items: the plan.
        records: by item id.
    """
    by_id = {item.id: item for item in items}
    return tuple(
        Notes(
            found.about,
            tuple(
                NotedItem(item_id, by_id[item_id].prompt, describe(by_id[item_id]), cut(message, MOST_MESSAGE_LETTERS))
                for item_id, message in found.items[:MOST_NOTED]
            ),
            len({item_id for item_id, _ in found.items}),
        )
        for found in group_notes(records[item.id] for item in items if item.id in records)
    )


SHOWN = 5
LISTS = 8
"""Rankings, the most important metrics first: more of them are no longer read."""

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
class Ranking:
    """The first of a ranking.

    Attributes:
        title: "slowest", or "worst by PSNR".
        items: at most five.
        more: how many others have the very same value as the last one shown.
    """

    title: str
    items: tuple[Outlier, ...]
    more: int = 0


def collect_outliers(
    items: Sequence[WorkItem],
    records: Mapping[str, Record],
    scores: Sequence[Score],
    metrics: Sequence[Heading],
    colours: Mapping[str, int],
) -> tuple[Ranking, ...]:
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
    found = [_ranking("slowest", times, lambda value: f"{numbers.number(value)} s", True, colours, _over_median(times))]
    by_metric: dict[str, dict[str, float]] = {}
    for score in scores:
        if score.value is not None:
            by_metric.setdefault(score.metric, {})[score.item_id] = score.value
    for metric in metrics:
        if "." in metric.name:
            continue
        write = partial(numbers.styled, style=metric.style)
        rows = by_metric.get(metric.name, {})
        values = [(item, value) for item in done.values() if (value := rows.get(item.id)) is not None]
        found.append(_ranking(f"worst by {metric.title}", values, write, not metric.higher_is_better, colours))
    return tuple(each for each in found if each is not None)[:LISTS]


def _ranking(
    title: str,
    values: Sequence[Value],
    write: Callable[[float], str],
    largest: bool,
    colours: Mapping[str, int],
    note: Callable[[WorkItem, float], str] = lambda item, value: "",
) -> Ranking | None:
    found = [value for _, value in values]
    if len(set(found)) < 2:
        return None
    ranked = sorted(values, key=lambda pair: -pair[1] if largest else pair[1])
    best = ranked[-1][1]
    ranked = [pair for pair in ranked if pair[1] != best]
    scale = Scale(min(0.0, *found), max(found))
    shown = ranked[:SHOWN]
    more = sum(value == shown[-1][1] for _, value in ranked[SHOWN:])
    return Ranking(title, tuple(_outlier(item, value, write, scale, colours, note) for item, value in shown), more)


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


def _over_median(times: Sequence[Value]) -> Callable[[WorkItem, float], str]:
    """Return a function that writes how many times its cell's median an item took."""
    cells: dict[tuple[str, ...], list[float]] = {}
    for item, elapsed_s in times:
        cells.setdefault(tuple(axes_of(item).values()), []).append(elapsed_s)
    medians = {cell: median(found) for cell, found in cells.items()}

    def note(item: WorkItem, elapsed_s: float) -> str:
        return f"{elapsed_s / medians[tuple(axes_of(item).values())]:.1f}× the median"

    return note
