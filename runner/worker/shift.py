"""What a rank does from its first item to its last: alone, in its data group, or at the end with other groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genrun.runner.parallel.tail import kept_back, points_of, widths

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.parallel.elastic import ElasticTeam
    from genrun.runner.parallel.mesh import Mesh
    from genrun.runner.parallel.team import Team
    from genrun.runner.worker.beside import Beside
    from genrun.runner.worker.luck import Luck
    from genrun.runner.worker.queue import Claim, Queue


@dataclass
class Shift:
    """A rank's work on the items of one launch.

    Attributes:
        mesh: of the launch.
        make: makes an item, or leaves its end to be done beside the next one; from the item, the attempt, and on the rank
            that has it the claim, which it lets go.
        beside: what is left of the last item.
        team: the ranks that make an item together.
        queue: where leaders get items.
        by_id: the items.
        luck: what has come of them.
        model: of the last item, which is loaded.
    """

    mesh: Mesh
    make: Callable[[WorkItem, int, Claim | None], None]
    beside: Beside
    team: Team
    queue: Queue
    by_id: Mapping[str, WorkItem]
    luck: Luck
    model: dict[str, Any] | None = None

    def work(self) -> None:
        """Make items until none is left for this team."""
        while self._step(self._next):
            pass

    def work_apart(self, team: ElasticTeam) -> None:
        """Make items in data groups while there are enough for all groups."""
        mesh = self.mesh
        points = [points_of(item) for item in self.queue.free()] if team.rank == 0 else []
        kept = team.announce(kept_back(points, mesh.data, mesh.time))
        while self._step(lambda: self.queue.take(self.model) if len(self.queue.free()) > kept else None):
            pass
        self.beside.wait()

    def work_together(self, team: ElasticTeam) -> None:
        """Make what is left in teams of several groups."""
        while (wave := team.announce(self._next_wave() if team.rank == 0 else None)) is not None:
            place = team.arrange([width for _, width in wave])
            if place is not None:
                item = self.by_id[wave[place][0]]
                self._step(lambda item=item: self.queue.claim(item))
                self.beside.wait()

    def _next(self) -> Claim | None:
        """The next item; where there seems to be none, the last one has to be done before that is sure: it may fail."""
        claim = None if self.beside.is_idle else self.queue.take(self.model)
        if claim is not None:
            return claim
        self.beside.wait()
        return self.queue.next(self.model)

    def _next_wave(self) -> list[tuple[str, int]] | None:
        """The next items and how many groups share each, or None when nothing is left; waits for strangers' items."""
        mesh = self.mesh
        while not (free := self.queue.free()):
            if not self.queue.waits():
                return None
            self.queue.rest()
        shares = widths([points_of(item) for item in free], mesh.data, mesh.time)
        return [(item.id, width) for item, width in zip(free, shares, strict=False)]

    def _step(self, choose: Callable[[], Claim | None]) -> bool:
        """Make the item that the team's leader chooses; returns whether there was one."""
        team = self.team
        claim = choose() if team.leads and not self._is_out() else None
        try:
            shared = team.share(claim and (claim.item.id, claim.attempt))
            if shared is None:
                return False
            item = self.by_id[shared[0]]
            self.model = item.model
            self.make(item, shared[1], claim)
        except BaseException:
            if claim is not None:
                claim.lease.release()
            raise
        return True

    def _is_out(self) -> bool:
        """Whether luck has run out, the item beside counted."""
        if self.luck.is_out:
            self.beside.wait()
        return self.luck.is_out
