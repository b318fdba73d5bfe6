"""Data groups that join others when items run out: a team that can grow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from genrun.runner.parallel.mesh import Mesh
from genrun.runner.parallel.team import Group, Solo, own_group

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from genrun.adapters.parallel.slot import Slot


class ElasticTeam:
    """The team of a rank: its data group, or several together.

    Args:
        base: the rank's own group.
        world: all ranks of the launch, for talk.
        mesh: of the launch.
    """

    def __init__(self, base: Solo | Group, world: ProcessGroup, mesh: Mesh) -> None:
        self._base, self._world, self._mesh = base, world, mesh
        self._now: Solo | Group = base
        self._made: dict[tuple[range, ...], tuple[ProcessGroup, ProcessGroup]] = {}

    @property
    def rank(self) -> int:
        """This rank among all ranks of the launch."""
        return self._base.rank

    @property
    def leads(self) -> bool:
        """Whether this rank claims, decodes and writes."""
        return self._now.leads

    @property
    def points(self) -> ProcessGroup | None:
        """The group in which model outputs are gathered now."""
        return self._now.points

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
        """See whether the other ranks of this slot failed too.

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
        """Put data groups together: the first `widths[0]`, the next `widths[1]`, and so on.

        Every rank of the launch calls this alike.

        Returns:
            Which of the new teams this rank is in, or None for a rank that is left over.
        """
        starts = [sum(widths[:number]) for number in range(len(widths))]
        teams = tuple(
            range(a * self._mesh.team, (a + w) * self._mesh.team) for a, w in zip(starts, widths, strict=True)
        )
        groups = self._groups(teams)
        mine = next((number for number, team in enumerate(teams) if self.rank in team), None)
        self._now = self._base
        if mine is not None and widths[mine] > 1:
            mesh = Mesh(1, self._mesh.time * widths[mine], *self._mesh.shape[2:])
            alarm = None if isinstance(self._base, Solo) else self._base.alarm
            self._now = Group(self.rank, teams[mine][0], *groups, mesh, self.slot, alarm)
        return mine

    def close(self) -> None:
        """Leave all groups."""
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()

    def _groups(self, teams: tuple[range, ...]) -> tuple[ProcessGroup, ProcessGroup]:
        """Groups for talk and for outputs; made once for each arrangement."""
        import torch

        if teams not in self._made:
            rest = range(teams[-1].stop, self._mesh.ranks)
            lists = [*teams, rest] if rest else list(teams)
            columns = [team[place :: self._mesh.slot] for team in lists for place in range(self._mesh.slot)]
            outputs = "nccl" if torch.cuda.is_available() else "gloo"
            self._made[teams] = own_group(self.rank, lists, "gloo"), own_group(self.rank, columns, outputs)
        return self._made[teams]
