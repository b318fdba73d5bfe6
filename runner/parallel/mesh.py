"""How ranks are arranged: data x time x cfg x ring x ulysses, the first the outermost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from genrun.runner.job.mesh_axes import product
from genrun.runner.parallel.choose import Choice, Objective, choose


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
    def slot(self) -> int:
        """Ranks that make one evaluation together."""
        return self.cfg * self.ring * self.ulysses

    @property
    def team(self) -> int:
        """Ranks that make one item together."""
        return self.time * self.slot

    @property
    def ranks(self) -> int:
        """All ranks."""
        return self.data * self.team

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes in the order of `AXES`."""
        return (self.data, self.time, self.cfg, self.ring, self.ulysses)

    def to_dict(self) -> dict[str, int]:
        """Axis -> size."""
        return asdict(self)

    def __str__(self) -> str:
        return product(self.to_dict())


ALONE = Mesh(1, 1)
"""One rank."""


@dataclass(frozen=True)
class Wish:
    """The ranks that a job asks for, before it is known how many there are.

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
    def slot(self) -> int:
        """Ranks that make one evaluation together."""
        return self.cfg * self.ring * self.ulysses

    def mesh(self, ranks: int | None = None) -> Mesh:
        """The mesh of so many ranks; where that does not come out even, one of other size. None: one group, or as told."""
        time = self.choice(ranks).time if self.time == "auto" else self.time
        team = time * self.slot
        data = self.data if self.data != "auto" else max(1, (ranks or team) // team)
        return Mesh(data, time, self.cfg, self.ring, self.ulysses)

    def choice(self, ranks: int | None) -> Choice:
        """What "auto" makes of so many ranks."""
        slots = max(1, (ranks or self.slot) // self.slot)
        if self.data == "auto":
            return choose(self.points, slots, self.objective)
        time = max(1, slots // self.data)
        return Choice(self.data, time, f"parallel.data: {self.data} leaves {time} slots for each group")
