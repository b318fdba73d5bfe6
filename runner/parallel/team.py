"""Ranks that make one item together: one alone, a time group that shares a round's points, or groups that join others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from genrun.adapters.parallel.support import AXES
from genrun.runner.parallel.mesh import ALONE, Mesh

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from genrun.adapters.parallel.slot import FailureBarrier, Slot

TIMEOUT = timedelta(days=2)
"""Longest wait of ranks for their leader, which may be decoding, writing, or waiting for a lease."""


class Team(Protocol):
    """The ranks that make items together with this one, as a worker's loop sees them."""

    @property
    def rank(self) -> int:
        """This rank among all ranks of the launch."""
        ...

    @property
    def leads(self) -> bool:
        """True when this rank claims, decodes and writes."""
        ...

    @property
    def exchange_group(self) -> ProcessGroup | None:
        """The group in which model outputs are gathered, or None for a rank alone."""
        ...

    @property
    def slot(self) -> Slot | None:
        """The ranks that make each evaluation together, or None where each makes its own."""
        ...

    @property
    def mesh(self) -> Mesh:
        """The ranks that make an item together: data is 1."""
        ...

    def share(self, value: Any) -> Any:
        """Return the leader's `value` on every rank."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks, in order, on every rank."""
        ...

    def failed(self, error: Exception) -> None:
        """Report that sampling failed on this rank; return when the team can go on.

        Raises:
            BrokenSlotError: it cannot: other ranks wait for this one in the middle of an evaluation.
        """
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
    exchange_group: None = None
    slot: None = None
    mesh: Mesh = ALONE

    def share(self, value: Any) -> Any:
        """Return `value`."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """Return [value]."""
        return [value]

    def failed(self, error: Exception) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class DataGroup:
    """A data group of several ranks: time slots, which evaluate different points, of one or several ranks each.

    Attributes:
        rank: this rank among all ranks of the launch.
        leader: the group's first rank.
        control: the group for talk between the ranks (gloo, on the CPU).
        exchange_group: for model outputs (nccl on GPUs, else gloo): this rank's place in each slot. None with one slot.
        mesh: the group's ranks.
        slot: this rank's slot, where a slot has several ranks.
        alarm: of the slot.
    """

    rank: int
    leader: int
    control: ProcessGroup
    exchange_group: ProcessGroup | None
    mesh: Mesh
    slot: Slot | None = None
    alarm: FailureBarrier | None = None

    @property
    def leads(self) -> bool:
        """True for the group's first rank."""
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

    def failed(self, error: Exception) -> None:
        """Find out whether the other ranks of this slot failed too.

        Raises:
            BrokenSlotError: they did not.
        """
        if self.alarm is not None:
            self.alarm.wait(error)

    def close(self) -> None:
        """Leave all groups."""
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


class ElasticTeam:
    """A team that can grow: a rank's data group, or several together when items run out.

    Args:
        base: the rank's own group.
        world: all ranks of the launch, for talk.
        mesh: of the launch.
        outputs: backend of the groups in which model outputs are gathered, nccl or gloo.
    """

    def __init__(self, base: Solo | DataGroup, world: ProcessGroup, mesh: Mesh, outputs: str) -> None:
        self._base, self._world, self._mesh, self._outputs = base, world, mesh, outputs
        self._now: Solo | DataGroup = base
        self._made: dict[tuple[range, ...], tuple[ProcessGroup, ProcessGroup]] = {}

    @property
    def rank(self) -> int:
        """This rank among all ranks of the launch."""
        return self._base.rank

    @property
    def leads(self) -> bool:
        """True when this rank claims, decodes and writes."""
        return self._now.leads

    @property
    def exchange_group(self) -> ProcessGroup | None:
        """The group in which model outputs are gathered now."""
        return self._now.exchange_group

    @property
    def slot(self) -> Slot | None:
        """The ranks that make each evaluation together: always the same."""
        return self._base.slot

    @property
    def mesh(self) -> Mesh:
        """The ranks that make an item together now."""
        return self._now.mesh

    def share(self, value: Any) -> Any:
        """Return the leader's `value` on every rank of the team."""
        return self._now.share(value)

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all ranks of the team."""
        return self._now.gather(value)

    def failed(self, error: Exception) -> None:
        """Find out whether the other ranks of this slot failed too.

        Raises:
            BrokenSlotError: they did not.
        """
        self._base.failed(error)

    def announce(self, value: Any) -> Any:
        """Return rank 0's `value` on every rank of the launch."""
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._world)
        return box[0]

    def arrange(self, widths: Sequence[int]) -> int | None:
        """Join data groups into teams: the first `widths[0]` groups, the next `widths[1]`, and so on.

        Every rank of the launch calls this alike.

        Returns:
            The number of the new team that this rank is in, or None for a rank that is left over.
        """
        starts = [sum(widths[:number]) for number in range(len(widths))]
        teams = tuple(
            range(a * self._mesh.ranks_per_team, (a + w) * self._mesh.ranks_per_team)
            for a, w in zip(starts, widths, strict=True)
        )
        groups = self._groups(teams)
        mine = next((number for number, team in enumerate(teams) if self.rank in team), None)
        self._now = self._base
        if mine is not None and widths[mine] > 1:
            mesh = Mesh(1, self._mesh.time * widths[mine], *self._mesh.shape[2:])
            alarm = None if isinstance(self._base, Solo) else self._base.alarm
            self._now = DataGroup(self.rank, teams[mine][0], *groups, mesh, self.slot, alarm)
        return mine

    def close(self) -> None:
        """Leave all groups."""
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()

    def _groups(self, teams: tuple[range, ...]) -> tuple[ProcessGroup, ProcessGroup]:
        """Return groups for talk and for outputs, made once for each arrangement."""
        if teams not in self._made:
            rest = range(teams[-1].stop, self._mesh.ranks)
            lists = [*teams, rest] if rest else list(teams)
            size = self._mesh.ranks_per_slot
            columns = [team[place::size] for team in lists for place in range(size)]
            self._made[teams] = _own_group(self.rank, lists, "gloo"), _own_group(self.rank, columns, self._outputs)
        return self._made[teams]


def join(rank: int, mesh: Mesh, device: str = "cpu", *, elastic: bool = False, backend: str = "diffusers") -> Team:
    """Join the team of `rank` in a launch's mesh.

    Args:
        rank: of the launch.
        mesh: of the launch.
        device: the torch device of this rank.
        elastic: whether data groups may join each other.
        backend: what shares an evaluation's tokens out: diffusers or xfuser.
    """
    if not elastic or mesh.data == 1:
        return Solo(rank) if mesh.ranks_per_team == 1 else _join_group(rank, mesh, device, backend)
    base = _join_group(rank, mesh, device, backend)
    world = _own_group(rank, [range(mesh.ranks)], "gloo")
    return ElasticTeam(Solo(rank) if mesh.ranks_per_team == 1 else base, world, mesh, _outputs_backend(device))


def _outputs_backend(device: str) -> str:
    """Return the backend that gathers outputs: not by whether there is a GPU, since a job may keep to the CPU beside one."""
    return "nccl" if device.startswith("cuda") else "gloo"


def _join_group(rank: int, mesh: Mesh, device: str, backend: str) -> DataGroup:
    import torch
    import torch.distributed as dist

    outputs = _outputs_backend(device)
    on_gpus = outputs == "nccl"
    if on_gpus:
        torch.cuda.set_device(device)
    backends = "cpu:gloo,cuda:nccl" if on_gpus and mesh.ranks_per_slot > 1 else "gloo"
    dist.init_process_group(backends, rank=rank, world_size=mesh.ranks, timeout=TIMEOUT)
    leader, ours = rank - rank % mesh.ranks_per_team, Mesh(1, *mesh.shape[1:])
    teams = [range(first, first + mesh.ranks_per_team) for first in range(0, mesh.ranks, mesh.ranks_per_team)]
    control = _own_group(rank, teams, "gloo")
    columns = [team[place :: mesh.ranks_per_slot] for team in teams for place in range(mesh.ranks_per_slot)]
    exchange = _own_group(rank, columns, outputs) if mesh.time > 1 else None
    if mesh.ranks_per_slot == 1:
        return DataGroup(rank, leader, control, exchange, ours)
    from torch.distributed.device_mesh import init_device_mesh

    from genrun.adapters.parallel.slot import FailureBarrier, Slot

    devices = init_device_mesh("cuda" if on_gpus else "cpu", mesh.shape, mesh_dim_names=AXES)
    slots = [range(first, first + mesh.ranks_per_slot) for first in range(0, mesh.ranks, mesh.ranks_per_slot)]
    alarm = FailureBarrier(_own_group(rank, slots, "gloo"))
    slot = Slot(devices, mesh.cfg, mesh.ring, mesh.ulysses, backend)
    # Here, and not when a pipeline is loaded: torch wants all ranks of a launch there when it makes a group.
    slot.meet()
    return DataGroup(rank, leader, control, exchange, ours, slot, alarm)


def _own_group(rank: int, lists: Sequence[Sequence[int]], backend: str) -> ProcessGroup:
    """Make a process group of each list of ranks; every rank of the launch calls this alike, and gets the one it is in."""
    import torch.distributed as dist

    mine: list[ProcessGroup] = []
    for members in lists:
        group = dist.new_group(list(members), timeout=TIMEOUT, backend=backend)
        if rank in members and isinstance(group, dist.ProcessGroup):
            mine.append(group)
    return mine[0]
