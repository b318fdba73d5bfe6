"""The ranks that make one item together: one rank alone, or a time group that shares a round's points."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

PATIENCE = timedelta(days=2)
"""How long ranks wait for their leader, which may be decoding, writing, or waiting for a lease."""


class Team(Protocol):
    """What a worker needs of the ranks beside it."""

    @property
    def rank(self) -> int:
        """This rank among all ranks of the launch."""
        ...

    @property
    def leads(self) -> bool:
        """Whether this rank claims, decodes and writes."""
        ...

    @property
    def points(self) -> ProcessGroup | None:
        """The group in which model outputs are gathered, or None for a rank alone."""
        ...

    def share(self, value: Any) -> Any:
        """Return the leader's `value` on every rank."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in order, on every rank."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...


@dataclass(frozen=True)
class Solo:
    """A rank that makes items alone.

    Attributes:
        rank: this rank among all ranks of the launch.
    """

    rank: int = 0
    leads: bool = True
    points: None = None

    def share(self, value: Any) -> Any:
        """Return `value`."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """Return [value]."""
        return [value]

    def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class TimeTeam:
    """A data group of several ranks.

    Attributes:
        rank: this rank among all ranks of the launch.
        leader: the group's first rank.
        control: the group for talk between the ranks (gloo, on the CPU).
        points: the group for model outputs (nccl on GPUs, else gloo).
    """

    rank: int
    leader: int
    control: ProcessGroup
    points: ProcessGroup

    @property
    def leads(self) -> bool:
        """Whether this is the group's first rank."""
        return self.rank == self.leader

    def share(self, value: Any) -> Any:
        """Return the leader's `value` on every rank."""
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=self.leader, group=self.control)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in order, on every rank."""
        import torch.distributed as dist

        values: list[Any] = [None] * dist.get_world_size(self.control)
        dist.all_gather_object(values, value, group=self.control)
        return values

    def close(self) -> None:
        """Leave all groups."""
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def join(rank: int, ranks: int, time: int) -> Team:
    """Join the team of `rank`: data group rank // time of the launch's `ranks`.

    Raises:
        ValueError: `ranks` is not a multiple of `time`.
    """
    if ranks % time:
        raise ValueError(f"{ranks} ranks cannot be split into groups of {time}")
    return Solo(rank) if time == 1 else _join_group(rank, ranks, time)


def _join_group(rank: int, ranks: int, time: int) -> TimeTeam:
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", rank=rank, world_size=ranks, timeout=PATIENCE)
    backends = ["gloo"] + (["nccl"] if torch.cuda.is_available() else [])
    mine: list[ProcessGroup] = []
    for leader in range(0, ranks, time):
        members = list(range(leader, leader + time))
        for backend in backends:
            group = dist.new_group(members, timeout=PATIENCE, backend=backend)
            if rank in members and isinstance(group, dist.ProcessGroup):
                mine.append(group)
    return TimeTeam(rank, rank - rank % time, control=mine[0], points=mine[-1])
