"""The end of a batch, when items are fewer than data groups: how many groups share each.

Items are counted in evaluations, which is what they take while a model call takes always as long: an item whose solver asks
for K points a round takes K of them a round on one slot, and ceil(K / slots) where several share the round.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem


def points_of(item: WorkItem) -> int:
    """K, the points of a round that an item's solver asks for; more slots than that are of no use to it."""
    workers = item.solver.get("workers")
    return workers if isinstance(workers, int) else 1


def kept_back(points: Sequence[int], groups: int, time: int) -> int:
    """How many of a batch's items are left for the end, to be shared: those that would fill only part of the groups.

    Args:
        points: K of each item.
        groups: data groups.
        time: slots of a group.
    """
    able = sum(each > time for each in points)
    return min(len(points) % groups, able) if groups > 1 else 0


def widths(points: Sequence[int], groups: int, time: int) -> list[int]:
    """How many groups share each of the next items, the first of `points`; together at most `groups`.

    As many items at a time as make all of them end soonest; of several ways that do, the one with most at a time, which
    exchanges least.
    """
    if not points:
        return []

    def makespan(at_once: int) -> float:
        slots = groups // at_once * time
        return ceil(len(points) / at_once) * max(ceil(each / slots) / each for each in points)

    at_once = min(range(min(len(points), groups), 0, -1), key=makespan)
    return [min(groups // at_once, max(1, each // time)) for each in points[:at_once]]
