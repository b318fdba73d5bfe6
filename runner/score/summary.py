"""Numbers about a run: one group of items for each point of the job's matrix, every mean with n and its interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from genrun.runner import statistics
from genrun.runner.store.records import Record, SamplerStats, Score, set_id

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem


@dataclass(frozen=True)
class Estimate:
    """A mean over items.

    Attributes:
        n: how many items were measured.
        mean: their mean.
        median: their median.
        low: lower end of the 95% interval of the mean; None for fewer than two items.
        high: upper end.
        minimum: smallest value.
        maximum: largest value.
    """

    n: int
    mean: float
    median: float
    low: float | None
    high: float | None
    minimum: float
    maximum: float


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
        is_reference: whether these are the sequential items that others are compared with.
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

    @property
    def pending(self) -> int:
        """Items without a record."""
        return self.items - self.done - self.failed

    @property
    def label(self) -> str:
        """The axes' labels in one line."""
        return ", ".join(self.axes.values())

    @property
    def solver_label(self) -> str:
        """The solver alone, without the other axes."""
        return solver_label(self.axes, self.solver)


def summarize(
    items: Sequence[WorkItem], records: Mapping[str, Record], scores: Iterable[Score], shares: Iterable[str] = ()
) -> list[Group]:
    """Group items by the axes of the matrix (by solver when there is none), in the order of the plan.

    Args:
        items: the plan.
        records: by item id.
        scores: rows of any metrics; rows without a value are left out of the means. The score of a whole group
            (`set_id`) stands for a metric that its items have no values of.
        shares: metrics whose values are 0 or 1, with their parts (`name.part`).
    """
    values: dict[str, dict[str, float]] = {}
    for score in scores:
        if score.value is not None:
            values.setdefault(score.metric, {})[score.item_id] = score.value
    grouped: dict[tuple[tuple[str, str], ...], list[WorkItem]] = {}
    for item in items:
        grouped.setdefault(tuple(axes_of(item).items()), []).append(item)
    return [_group(dict(axes), members, records, values, tuple(shares)) for axes, members in grouped.items()]


def axes_of(item: WorkItem) -> dict[str, str]:
    """The item's place in the matrix, or its solver when the job has no matrix."""
    return dict(item.axes) or {"solver": str(item.solver.get("kind", "?"))}


def solver_label(axes: Mapping[str, str], kind: str) -> str:
    """What sets an item apart from the others of its pair: its labels on axes of the solver, or the solver's kind."""
    return ", ".join(label for axis, label in axes.items() if is_solver_axis(axis)) or kind


def is_solver_axis(axis: str) -> bool:
    """Whether an axis varies the solver, the cache, the attention, or an option of them: how an item is computed."""
    return axis.partition(".")[0] in ("solver", "cache", "attention")


def estimate(values: Sequence[float], *, share: bool = False) -> Estimate | None:
    """Return the mean of `values` with its 95% interval; None for no values.

    Args:
        values: one for each item.
        share: whether the values are yes or no; others are measured like any number.
    """
    if not values:
        return None
    import numpy as np

    array = np.asarray(values, dtype=np.float64)
    interval = statistics.mean_interval(values, share=share and statistics.are_binary(values))
    low, high = interval or (None, None)
    return Estimate(
        n=len(array),
        mean=float(array.mean()),
        median=float(np.median(array)),
        low=low,
        high=high,
        minimum=float(array.min()),
        maximum=float(array.max()),
    )


def _group(
    axes: Mapping[str, str],
    members: Sequence[WorkItem],
    records: Mapping[str, Record],
    values: Mapping[str, Mapping[str, float]],
    shares: tuple[str, ...],
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
        **_costs(stats),
        metrics=_metrics([record.item_id for record in done], set_id(axes), values, shares),
        item_ids=tuple(item.id for item in members),
        is_reference=members[0].is_reference,
    )


def _costs(stats: Sequence[SamplerStats]) -> dict[str, Estimate | None]:
    return {
        "rounds": estimate([float(stat.rounds) for stat in stats]),
        "nfe": estimate([float(stat.nfe) for stat in stats]),
        "speedup": estimate([stat.speedup for stat in stats]),
        "blocks": estimate([stat.blocks for stat in stats if stat.blocks]),
    }


def _metrics(
    item_ids: Sequence[str], group_id: str, values: Mapping[str, Mapping[str, float]], shares: tuple[str, ...]
) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    for name, by_item in values.items():
        measured = [by_item[item_id] for item_id in item_ids if item_id in by_item]
        result = estimate(measured, share=name.partition(".")[0] in shares)
        if result is None and group_id in by_item:
            result = _of_group(by_item[group_id], len(item_ids))
        if result is not None:
            found[name] = result
    return found


def _of_group(value: float, items: int) -> Estimate:
    """A number of the whole group, such as a Fréchet distance: there is one, so it has no interval."""
    return Estimate(items, value, value, None, None, value, value)
