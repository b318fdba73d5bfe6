"""Arrangements of ranks: the mesh data x time x cfg x ring x ulysses, its choice for `auto`, and sharing at a batch's end.

Work is counted in evaluations, which is what items take while a model call takes always as long: an item whose solver asks
for K points a round takes K evaluations a round on one slot, and ceil(K / slots) where several slots share the round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Literal

from genrun.adapters.parallel.support import product

Objective = Literal["throughput", "latency"]
"""Throughput: all items soonest. Latency: each item soonest."""


@dataclass(frozen=True)
class Mesh:
    """The ranks of a launch.

    Attributes:
        data: groups that make items side by side.
        time: slots of a group, which share the points of one item's rounds.
        cfg: ranks of a slot that share the two guidance branches of one evaluation.
        ring: ranks of a slot that share an evaluation's tokens by passing keys and values around.
        ulysses: ranks of a slot that share an evaluation's tokens by exchanging heads.
    """

    data: int
    time: int
    cfg: int = 1
    ring: int = 1
    ulysses: int = 1

    @property
    def ranks_per_slot(self) -> int:
        """Ranks that make one evaluation together."""
        return self.cfg * self.ring * self.ulysses

    @property
    def ranks_per_team(self) -> int:
        """Ranks that make one item together."""
        return self.time * self.ranks_per_slot

    @property
    def ranks(self) -> int:
        """All ranks."""
        return self.data * self.ranks_per_team

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes in the order of `AXES`."""
        return (self.data, self.time, self.cfg, self.ring, self.ulysses)

    def to_dict(self) -> dict[str, int]:
        """Return the size of each axis."""
        return asdict(self)

    def __str__(self) -> str:
        return product(self.to_dict())


ALONE = Mesh(1, 1)
"""The mesh of a single rank."""


@dataclass(frozen=True)
class Choice:
    """Slots as `auto` arranges them.

    Attributes:
        data: groups that make items side by side.
        time: slots of a group.
        why: the reason, a sentence.
    """

    data: int
    time: int
    why: str


@dataclass(frozen=True)
class MeshRequest:
    """The mesh that a job asks for, before the number of ranks is known.

    Attributes:
        data: groups that make items side by side, or "auto" for as many as there are ranks for.
        time: slots of a group, or "auto" for what suits the objective.
        cfg: as of a Mesh.
        ring: as of a Mesh.
        ulysses: as of a Mesh.
        objective: what "auto" is to look for.
        points: K of each item, the points of a round that its solver asks for.
    """

    data: int | Literal["auto"] = "auto"
    time: int | Literal["auto"] = 1
    cfg: int = 1
    ring: int = 1
    ulysses: int = 1
    objective: Objective = "throughput"
    points: tuple[int, ...] = ()

    @property
    def ranks_per_slot(self) -> int:
        """Ranks that make one evaluation together."""
        return self.cfg * self.ring * self.ulysses

    def mesh(self, ranks: int | None = None) -> Mesh:
        """Return the mesh of so many ranks, or of another number where these do not come out even.

        Without a number of ranks it has one group, or as many as told.
        """
        time = self.choice(ranks).time if self.time == "auto" else self.time
        team = time * self.ranks_per_slot
        data = self.data if self.data != "auto" else max(1, (ranks or team) // team)
        return Mesh(data, time, self.cfg, self.ring, self.ulysses)

    def choice(self, ranks: int | None) -> Choice:
        """Return what "auto" makes of so many ranks."""
        slots = max(1, (ranks or self.ranks_per_slot) // self.ranks_per_slot)
        if self.data == "auto":
            return choose(self.points, slots, self.objective)
        time = max(1, slots // self.data)
        return Choice(self.data, time, f"parallel.data: {self.data} leaves {time} slots for each group")


def choose(points: Sequence[int], slots: int, objective: Objective) -> Choice:
    """Arrange slots as data x time, in no way that could change a bit of an item.

    Args:
        points: K of each item; none where the items are not known.
        slots: slots there are: ranks, or groups of ranks that make one evaluation together.
        objective: what is to be soonest.
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


def points_of(solver: Mapping[str, Any]) -> int:
    """Return K, the points of a round that an item's solver asks for; more slots than that are of no use to it."""
    workers = solver.get("workers")
    return workers if isinstance(workers, int) else 1


def items_kept_back(points: Sequence[int], groups: int, time: int) -> int:
    """Return how many items of a batch are left for its end, to be shared: those that would fill only part of the groups.

    Args:
        points: K of each item.
        groups: data groups.
        time: slots of a group.
    """
    able = sum(each > time for each in points)
    return min(len(points) % groups, able) if groups > 1 else 0


def share_groups(points: Sequence[int], groups: int, time: int) -> list[int]:
    """Return how many groups share each of the next items, the first of `points`; together at most `groups`.

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
