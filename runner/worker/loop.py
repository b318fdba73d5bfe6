"""The loop of a rank: claim an item, sample it, finish it in the background, until nothing is left.

All ranks that make items together run it in step: the one that leads claims, decodes and writes, and tells the others
which item is next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from genrun.runner.parallel.mesh import items_kept_back, points_of, share_groups
from genrun.runner.parallel.team import ElasticTeam, Team
from genrun.runner.progress import ProgressFile
from genrun.runner.store.order import DECODING, LOADING, ActivityFile
from genrun.runner.worker.failures import CancelledError
from genrun.runner.worker.finish import Background, OverlapMemoryError, UnfinishedItem
from genrun.runner.worker.rank import ProgressLines, say

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.parallel.mesh import Mesh
    from genrun.runner.store.records import Record
    from genrun.runner.worker.queue import Claim, Queue
    from genrun.runner.worker.sample import ItemSampler


class BrokenError(Exception):
    """A worker at which every item failed."""


@dataclass
class FailureBudget:
    """A stop for a worker whose first items all fail: then it is more likely to blame than they are.

    Attributes:
        limit: failures, without one success, that spend the budget; 0 for no limit.
        failures: items that failed here.
        last: kind of the last failure.
        has_succeeded: whether any item was made here.
    """

    limit: int
    failures: int = 0
    last: str = ""
    has_succeeded: bool = False

    @property
    def is_spent(self) -> bool:
        """True when nothing but failures came of the first items."""
        return 0 < self.limit <= self.failures and not self.has_succeeded

    def count(self, record: Record | None) -> None:
        """Count an item that this rank led; one that was cancelled says nothing of the worker."""
        if record is None or record.is_cancelled:
            return
        if record.error is None:
            self.has_succeeded = True
        else:
            self.failures += 1
            self.last = record.error.get("kind", "")

    def check(self) -> None:
        """Do nothing, unless the budget is spent.

        Raises:
            BrokenError: it is.
        """
        if self.is_spent:
            raise BrokenError(f"the first {self.failures} items all failed here, the last one with {self.last}")


@dataclass
class Loop:
    """A rank's work on the items of one launch.

    Attributes:
        sampler: samples items with this rank's team.
        queue: where the leader claims items.
        items: all items by id, to look up what the leader claimed.
        mesh: of the launch.
        budget: failures that this worker may have.
        background: where the last item is finished.
        activity: tells those who look on what this rank is doing.
        model: of the last item, which is loaded.
        overlaps: whether there has been memory enough to decode an item while the next one is sampled.
    """

    sampler: ItemSampler
    queue: Queue
    items: Mapping[str, WorkItem]
    mesh: Mesh
    budget: FailureBudget
    activity: ActivityFile
    background: Background = field(default_factory=Background)
    model: dict[str, Any] | None = None
    overlaps: bool = True

    @property
    def team(self) -> Team:
        """The ranks that make an item together."""
        return self.sampler.team

    def run(self) -> None:
        """Make items until nothing is left for this rank.

        Raises:
            StoreError: the run folder cannot be read or written.
            BrokenSlotError: this process has to end.
            BrokenError: every item failed here.
        """
        with self.background:
            if isinstance(self.team, ElasticTeam):
                self._run_elastic(self.team)
            else:
                while self._make(self._next):
                    pass
        self.budget.check()

    def _run_elastic(self, team: ElasticTeam) -> None:
        # While there are items enough for all data groups, each group makes its own.
        points = [points_of(item.solver) for item in self.queue.free()] if team.rank == 0 else []
        kept = team.announce(items_kept_back(points, self.mesh.data, self.mesh.time))
        while self._make(lambda: self.queue.take(self.model) if len(self.queue.free()) > kept else None):
            pass
        self.background.wait()
        self.budget.check()
        # Then groups join, and make what is left together: wave by wave, as many items at once as end soonest.
        while (wave := team.announce(self._next_wave() if team.rank == 0 else None)) is not None:
            place = team.arrange([groups for _, groups in wave])
            if place is not None:
                item = self.items[wave[place][0]]
                self._make(lambda item=item: self.queue.claim(item))
                self.background.wait()
                # A leader that claims nothing any more would be given the same item in every wave.
                self.budget.check()

    def _make(self, choose: Callable[[], Claim | None]) -> bool:
        """Claim an item, sample it and begin to finish it; return False when the team's leader had none to claim."""
        claim = choose() if self.team.leads and not self._is_broken() else None
        try:
            shared = self.team.share(claim and (claim.item.id, claim.attempt))
            if shared is None:
                return False
            item_id, attempt = shared
            self.model = self.items[item_id].model
            unfinished = self._sample(self.items[item_id], attempt, claim)
            if unfinished is not None and claim is not None:
                self._finish(unfinished, claim)
        except BaseException:
            if claim is not None:
                claim.release()
            raise
        return True

    def _is_broken(self) -> bool:
        """Return True when the budget is spent, the item in the background counted."""
        if self.budget.is_spent:
            self.background.wait()
        return self.budget.is_spent

    def _next(self) -> Claim | None:
        claim = None if self.background.is_idle else self.queue.take(self.model)
        if claim is not None:
            return claim
        # The item in the background may fail, and then be the next one: only without it is it sure that nothing is left.
        self.background.wait()
        return self.queue.next(self.model)

    def _next_wave(self) -> list[tuple[str, int]] | None:
        """Return the next items and how many groups share each, or None when none is left; wait for other launches."""
        while not (free := self.queue.free()):
            if not self.queue.waits_for_others():
                return None
            self.queue.pause()
        shares = share_groups([points_of(item.solver) for item in free], self.mesh.data, self.mesh.time)
        return [(item.id, groups) for item, groups in zip(free, shares, strict=False)]

    def _sample(self, item: WorkItem, attempt: int, claim: Claim | None) -> UnfinishedItem | None:
        """Sample an item with the team; `claim` is that of the rank that leads, which alone tells of progress."""
        say(f"{item.id}: attempt {attempt}")
        self.activity.enter(LOADING, item.id)
        lines = ProgressLines(item.id, lambda: self.sampler.producer.memory)
        progress = None
        if claim is not None:
            progress = ProgressFile(claim.progress_path, check=self._cancel_check(item))
            for left_over in self.sampler.folder.temporary_files(item.id):
                left_over.unlink(missing_ok=True)

        def on_round(front: int, num_steps: int) -> None:
            lines.update(front, num_steps)
            self.activity.advance(front, num_steps, self.sampler.producer.evaluations)
            if progress is not None:
                progress.update(front, num_steps)

        # Before another model is loaded, the last item has to be done with the old one.
        unfinished = self.sampler.sample(item, attempt, on_round, before_loading=self.background.wait)
        lines.close()
        return unfinished

    def _cancel_check(self, item: WorkItem) -> Callable[[], None]:
        """Return what raises CancelledError once somebody has taken the item out of the work."""
        folder = self.sampler.folder
        before = folder.record(item.id, check_files=True)

        def check() -> None:
            record = folder.record(item.id, check_files=True)
            if record is not None and record != before and record.is_cancelled:
                raise CancelledError

        return check

    def _finish(self, unfinished: UnfinishedItem, claim: Claim) -> None:
        """Decode, write and publish an item in the background, as far as memory and its pipeline allow."""
        if unfinished.sample is None:
            self._finish_now(unfinished, claim)
            return
        self.activity.enter(DECODING, unfinished.item.id)
        if unfinished.sample.can_overlap:
            # Only when the item before is done is it known whether memory is enough for both.
            self.background.wait()
        if not (unfinished.sample.can_overlap and self.overlaps):
            unfinished.decode()
        self.activity.decode(unfinished.item.id)
        self.background.start(lambda: self._finish_overlapped(unfinished, claim), drop=claim.release)

    def _finish_overlapped(self, unfinished: UnfinishedItem, claim: Claim) -> Callable[[], None] | None:
        """Finish in the background; return what has to be done again in the main thread, for want of memory."""
        try:
            self._publish(unfinished, is_alone=False)
        except OverlapMemoryError:
            self.overlaps = False
            say(
                f"{unfinished.item.id}: no memory for decoding while the next item is sampled; "
                "from now on one after the other"
            )
            return lambda: self._finish_now(unfinished, claim)
        except BaseException:
            claim.release()
            raise
        claim.release()
        self.activity.decode("")
        return None

    def _finish_now(self, unfinished: UnfinishedItem, claim: Claim) -> None:
        try:
            self._publish(unfinished, is_alone=True)
        finally:
            claim.release()

    def _publish(self, unfinished: UnfinishedItem, *, is_alone: bool) -> None:
        record = unfinished.finish(is_alone=is_alone)
        self.budget.count(record)
        if record is not None:
            outcome = "done" if record.error is None else f"failed: {record.error['kind']}"
            say(f"{record.item_id}: {outcome} in {record.elapsed_s:.3f} s")
