"""Which arrangement of ranks suits a job: `parallel: auto`. It never chooses one that could change a bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

Objective = Literal["throughput", "latency"]


@dataclass(frozen=True)
class Choice:
    """How slots are arranged.

    Attributes:
        data: groups that make items side by side.
        time: slots of a group.
        why: the reason, a sentence.
    """

    data: int
    time: int
    why: str


def choose(points: Sequence[int], slots: int, objective: Objective) -> Choice:
    """Arrange slots for items whose solvers ask for so many points a round.

    Args:
        points: K of each item; none where the items are not known.
        slots: slots there are: ranks, or groups of ranks that make one evaluation together.
        objective: throughput: all items soonest. latency: each item soonest.
    """
    most = max(points, default=1)
    if slots == 1:
        return Choice(1, 1, "there is one slot, so nothing to arrange")
    if most == 1:
        return Choice(slots, 1, "the solvers ask for one point a round, which several ranks cannot share")
    sizes = [size for size in range(1, slots + 1) if slots % size == 0]
    if objective == "latency":
        time = min(sizes, key=lambda size: (ceil(most / size), size))
        rounds = f"{most} points a round take {ceil(most / time)} evaluations in a row on {time} ranks"
        return Choice(slots // time, time, f"objective latency: {rounds}, and no fewer on more")
    if not points or len(points) >= slots:
        left = len(points) % slots
        shared = f"; all share the last {left}" if left else ""
        return Choice(
            slots, 1, f"objective throughput: with {len(points)} items for {slots} slots each makes its own{shared}"
        )
    time = min(sizes, key=lambda size: (ceil(len(points) / (slots // size)) * ceil(most / size), size))
    why = f"objective throughput: {len(points)} items are fewer than {slots} slots, so that {time} share the rounds of each"
    return Choice(slots // time, time, why)
