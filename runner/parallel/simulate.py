"""A batch on data groups, item by item, as the workers take them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heapreplace

from genrun.runner.parallel.tail import kept_back, widths

Seconds = Callable[[int, int], float]
"""The time of an item, by its number, on so many slots."""


def makespan(points: Sequence[int], seconds: Seconds, groups: int, time: int, *, elastic: bool = False) -> float:
    """When the last item ends, without loading.

    Args:
        points: K of each item.
        seconds: how long an item takes.
        groups: data groups.
        time: slots of a group.
        elastic: whether groups share the last items.
    """
    order = sorted(range(len(points)), key=lambda number: points[number]) if elastic else list(range(len(points)))
    kept = kept_back(points, groups, time) if elastic else 0
    apart, together = order[: len(order) - kept], order[len(order) - kept :]
    free_at = [0.0] * groups
    heapify(free_at)
    for number in apart:
        heapreplace(free_at, free_at[0] + seconds(number, time))
    end = max(free_at)
    while together:
        shares = widths([points[number] for number in together], groups, time)
        end += max(seconds(number, share * time) for number, share in zip(together, shares, strict=False))
        together = together[len(shares) :]
    return end
