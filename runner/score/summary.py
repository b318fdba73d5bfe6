"""Summarize a run: one group of items for each point of the job's matrix, every mean with n and its interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from genrun.runner import numbers
from genrun.runner.score.metrics import bounds_of, style_of
from genrun.runner.statistics import COUNTS, Estimate, estimate
from genrun.runner.store.records import Record, Score, set_id

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem


@dataclass(frozen=True)
class Group:
    """The items of one point of the matrix.

    Attributes:
        axes: matrix axis -> label, in the order of the matrix.
        solver: the solver's kind.
        items: how many are planned.
        done: how many have a result.
        failed: how many have an error.
        rounds: parallel model calls per item.
        nfe: model evaluations per item.
        speedup: N / rounds per item.
        metrics: metric name -> estimate; metrics without a single value are absent.
        item_ids: the items, in the order of the plan.
        blocks: transformer blocks evaluated per item, where a cache counts them.
        is_reference: True for the sequential items that others are compared with.
        seconds: mean wall time of an item, decoding and writing included.
        num_steps: N; None where its items differ in it.
    """

    axes: Mapping[str, str]
    solver: str
    items: int
    done: int
    failed: int
    rounds: Estimate | None = None
    nfe: Estimate | None = None
    speedup: Estimate | None = None
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    item_ids: tuple[str, ...] = ()
    blocks: Estimate | None = None
    is_reference: bool = False
    seconds: float | None = None
    num_steps: int | None = None

    @property
    def pending(self) -> int:
        """Items without a record."""
        return self.items - self.done - self.failed

    @property
    def label(self) -> str:
        """Labels of the axes in one line."""
        return ", ".join(self.axes.values())

    @property
    def solver_label(self) -> str:
        """The solver alone, without the other axes."""
        return solver_label(self.axes, self.solver)


def summarize(items: Sequence[WorkItem], records: Mapping[str, Record], scores: Iterable[Score]) -> list[Group]:
    """Group items by the axes of the matrix (by solver when there is none), in the order of the plan.

    Args:
        items: the plan.
        records: by item id.
        scores: rows of any metrics; rows without a value are left out of the means. The score of a whole group
            (`set_id`) stands for a metric that its items have no values of.
    """
    values: dict[str, dict[str, float]] = {}
    without: dict[str, set[str]] = {}
    for score in scores:
        if score.value is not None:
            values.setdefault(score.metric, {})[score.item_id] = score.value
        else:
            without.setdefault(score.metric, set()).add(score.item_id)
    grouped: dict[tuple[tuple[str, str], ...], list[WorkItem]] = {}
    for item in items:
        grouped.setdefault(tuple(axes_of(item).items()), []).append(item)
    return [_group(dict(axes), members, records, values, without) for axes, members in grouped.items()]


def calls_in_a_row(group: Group) -> str:
    """Say what an item waits for: "9.4 model calls in a row instead of 50 (5.32×)"; "" where nothing tells."""
    if group.rounds is None or group.speedup is None:
        return ""
    calls = numbers.count(group.rounds.mean)
    said = f"{calls} model {'call' if calls == '1' else 'calls'} in a row"
    if group.speedup.mean <= 1:
        return said
    instead = "" if group.num_steps is None else f" instead of {group.num_steps}"
    return f"{said}{instead} ({numbers.times(group.speedup.mean)})"


def gains(groups: Sequence[Group]) -> list[str]:
    """Say what each solver costs in model calls and in seconds, and what it gains on the sequential sampler: a line each."""
    references = {_other_axes(group): group.seconds for group in groups if group.is_reference}
    lines = []
    for group in groups:
        calls = calls_in_a_row(group)
        if not calls or group.seconds is None:
            continue
        line = f"{group.label}: {calls}, {numbers.number(group.seconds)} s an item"
        before = None if group.is_reference else references.get(_other_axes(group))
        if before and group.seconds:
            line += f" instead of {numbers.number(before)} ({numbers.times(before / group.seconds)})"
        lines.append(line)
    return lines


def _other_axes(group: Group) -> tuple[tuple[str, str], ...]:
    """Return a group's place on the axes that are not of the solver: what it shares with its reference."""
    return tuple((axis, label) for axis, label in group.axes.items() if not is_solver_axis(axis))


def axes_of(item: WorkItem) -> dict[str, str]:
    """Return the item's place in the matrix, or its solver when the job has no matrix."""
    return dict(item.axes) or {"solver": str(item.solver.get("kind", "?"))}


def solver_label(axes: Mapping[str, str], kind: str) -> str:
    """Name an item among those of its pair: by its labels on axes of the solver, or by the solver's kind."""
    return ", ".join(label for axis, label in axes.items() if is_solver_axis(axis)) or kind


def is_solver_axis(axis: str) -> bool:
    """Return True for an axis of the solver, the cache, the attention, or an option of them: how an item is computed."""
    return axis.partition(".")[0] in ("solver", "cache", "attention")


def _group(
    axes: Mapping[str, str],
    members: Sequence[WorkItem],
    records: Mapping[str, Record],
    values: Mapping[str, Mapping[str, float]],
    without: Mapping[str, Set[str]],
) -> Group:
    found = [records[item.id] for item in members if item.id in records]
    done = [record for record in found if record.status == "done"]
    stats = [record.sampler for record in done if record.sampler is not None]
    return Group(
        axes=axes,
        solver=str(members[0].solver.get("kind", "?")),
        items=len(members),
        done=len(done),
        failed=len(found) - len(done),
        rounds=estimate([float(stat.rounds) for stat in stats], within=COUNTS),
        nfe=estimate([float(stat.nfe) for stat in stats], within=COUNTS),
        speedup=estimate([stat.speedup for stat in stats], within=COUNTS),
        metrics=_metrics([record.item_id for record in done], set_id(axes), values, without),
        item_ids=tuple(item.id for item in members),
        blocks=estimate([stat.blocks for stat in stats if stat.blocks], within=COUNTS),
        is_reference=members[0].is_reference,
        seconds=fmean(record.elapsed_s for record in done) if done else None,
        num_steps=stats[0].num_steps if len({stat.num_steps for stat in stats}) == 1 else None,
    )


def _metrics(
    item_ids: Sequence[str],
    group_id: str,
    values: Mapping[str, Mapping[str, float]],
    without: Mapping[str, Set[str]],
) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    for name, by_item in values.items():
        measured = [by_item[item_id] for item_id in item_ids if item_id in by_item]
        result = estimate(measured, share=style_of(name) == "share", within=bounds_of(name))
        if result is None and group_id in by_item:
            # A number of the whole group, such as a Fréchet distance: there is one, so it has no interval.
            value = by_item[group_id]
            left_out = {*without.get(name, ()), *without.get(name.partition(".")[0], ())}
            result = Estimate(
                sum(item_id not in left_out for item_id in item_ids), value, value, None, None, value, value
            )
        if result is not None:
            found[name] = result
    return found
