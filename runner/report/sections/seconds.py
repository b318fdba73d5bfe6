"""Seconds: what an item took here with each solver, and what the items took together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from genrun.runner import numbers
from genrun.runner.score.summary import Group, is_solver_axis
from genrun.runner.statistics import COUNTS, Estimate, estimate
from genrun.runner.store.records import Record

LONGEST_PAUSE_S = 60.0
"""Between two items: loading a model takes as long. What is longer is time in which the run stood still."""

ALIKE = 1.05
"""Ratio up to which two times are told as the same: clocks and neighbours on a machine vary by as much."""

SLOWER_HERE, ALIKE_HERE = "Not faster here.", "As fast here."
MOST_TOLD = 4
"""Solvers in a sentence; the table has the others."""


@dataclass(frozen=True)
class Seconds:
    """Times of a run.

    Attributes:
        by_group: label of a group -> seconds an item, mean over its items.
        sentence: whether solvers were faster here than the sequential sampler, and by how much; "" when that was not
            measured.
        answer: the same in two words.
        summed_s: seconds of all items together.
        elapsed_s: seconds in which at least one item was in work; 0 when no record says when it ended.
    """

    by_group: Mapping[str, Estimate] = field(default_factory=dict)
    sentence: str = ""
    answer: str = ""
    summed_s: float = 0.0
    elapsed_s: float = 0.0

    @property
    def totals(self) -> str:
        """Both sums in words."""
        return totals(self.summed_s, self.elapsed_s)


def collect_seconds(groups: Sequence[Group], records: Mapping[str, Record]) -> Seconds:
    """Return the times of a run.

    Args:
        groups: the summary.
        records: by item id.
    """
    by_group: dict[str, Estimate] = {}
    devices: dict[str, set[str]] = {}
    for group in groups:
        done = [record for item_id in group.item_ids if (record := records.get(item_id)) and record.status == "done"]
        found = estimate([record.elapsed_s for record in done if record.elapsed_s > 0], within=COUNTS)
        if found is not None:
            by_group[group.label] = found
            devices[group.label] = {record.device for record in done}
    answer, sentence = _compared(groups, by_group, devices)
    made = [record for group in groups for item_id in group.item_ids if (record := records.get(item_id)) is not None]
    return Seconds(by_group, sentence, answer, *summed_and_elapsed(made))


def summed_and_elapsed(records: Iterable[Record]) -> tuple[float, float]:
    """Return the seconds of all done items together, and those in which at least one of them was in work.

    Items that were taken over from an earlier run took no time in this one.
    """
    made = [record for record in records if record.status == "done" and record.reused_from is None]
    spans = sorted(span for record in made if (span := _span(record)) is not None)
    elapsed_s, start, end = 0.0, 0.0, 0.0
    for first, last in spans:
        if first > end + LONGEST_PAUSE_S:
            elapsed_s += end - start
            start, end = first, last
        end = max(end, last)
    return sum(record.elapsed_s for record in made), elapsed_s + end - start


def _span(record: Record) -> tuple[float, float] | None:
    try:
        end = datetime.fromisoformat(record.finished_at).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return end - record.elapsed_s, end


def totals(summed_s: float, elapsed_s: float) -> str:
    """Write both sums; the elapsed time only where it is known."""
    elapsed = f"{duration(elapsed_s)} elapsed, " if elapsed_s else ""
    return f"{elapsed}{duration(summed_s)} summed over items"


def duration(seconds: float) -> str:
    """Write seconds as 2:40, or 1:02:40 from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _compared(
    groups: Sequence[Group], by_group: Mapping[str, Estimate], devices: Mapping[str, set[str]]
) -> tuple[str, str]:
    """Return the answer, and the sentence, on every group that has a sequential one beside it."""
    references = {_others(group): group.label for group in groups if group.is_reference and group.label in by_group}
    beside = [
        (group.label, by_group[group.label].mean, references[_others(group)])
        for group in groups
        if not group.is_reference and group.label in by_group and _others(group) in references
    ]
    if not beside:
        return "", ""
    ratios = [by_group[reference].mean / mean for _, mean, reference in beside]
    answer = (
        "Faster here." if max(ratios) > ALIKE else "Not faster here." if max(ratios) < 1 / ALIKE else "As fast here."
    )
    ranked = sorted(zip(ratios, beside, strict=True), key=lambda pair: -pair[0])
    told = []
    for ratio, (label, mean, reference) in ranked[:MOST_TOLD]:
        elsewhere = " on another device" if devices[label] != devices[reference] else ""
        remark = f" ({_ratio(ratio)}{elsewhere})" if elsewhere or answer != ALIKE_HERE else ""
        told.append(f"{numbers.number(mean)} s with {label}{remark}")
    named = {reference for *_, reference in beside}
    start = "An item took "
    if len(named) == 1:
        reference = named.pop()
        start += f"{numbers.number(by_group[reference].mean)} s with {reference}, "
    more = f"; {len(ranked) - MOST_TOLD} more are in the table" if len(ranked) > MOST_TOLD else ""
    return answer, f"{start}{', '.join(told)}{more}."


def _others(group: Group) -> tuple[tuple[str, str], ...]:
    """Return the place of a group on the axes that say what is sampled, not how."""
    return tuple((axis, label) for axis, label in group.axes.items() if not is_solver_axis(axis))


def _ratio(ratio: float) -> str:
    if ratio > ALIKE:
        return f"{ratio:.1f}× faster"
    return f"{1 / ratio:.1f}× slower" if ratio < 1 / ALIKE else "as fast"
