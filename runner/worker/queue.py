"""The queue of a worker: its next item is claimed in the run folder, so that any number of workers can share a run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genrun.adapters.pipeline.additions import base_of
from genrun.runner.parallel.mesh import points_of
from genrun.runner.store.lease import remove_shown

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.lease import Lease, Leases
    from genrun.runner.store.order import Order


POLL_S = 1.0
"""Seconds between two looks at items that others hold: short compared to an item, and little traffic on a file server."""


@dataclass(frozen=True)
class Claim:
    """An item that is this worker's to make.

    Attributes:
        item: the item.
        attempt: 1 for the first try.
        lease: the lease held on it.
        progress_path: the item's progress file, which goes with the claim.
    """

    item: WorkItem
    attempt: int
    lease: Lease
    progress_path: Path

    def release(self) -> None:
        """Release the item; does no harm when it was released before."""
        try:
            remove_shown(self.progress_path.parent, self.item.id)
        except OSError:
            pass
        finally:
            self.lease.release()


class Queue:
    """The items of one order that this worker may still have to make.

    An item whose lease is held by a worker of the same launch is left to that worker. One that is held by a worker of
    another launch is waited for until that lease is renewed (its owner is alive, and keeps the item), released, or
    abandoned.
    """

    def __init__(self, leases: Leases, order: Order, items: Sequence[WorkItem], poll_s: float = POLL_S) -> None:
        wanted = None if order.items is None else set(order.items)
        self._open = {item.id: item for item in items if wanted is None or item.id in wanted}
        self._leases = leases
        self._folder = leases.folder
        self._order = order
        self._poll_s = poll_s
        self._seen: dict[str, int] = {}

    @property
    def is_empty(self) -> bool:
        """True when every item is done, or failed for good."""
        return all(self._is_settled(item) for item in list(self._open.values()))

    def next(self, model: dict[str, Any] | None = None) -> Claim | None:
        """Claim the next item, preferably of `model`, waiting for those of other launches; None when nothing is left.

        Raises:
            StoreError: the run folder cannot be read or written.
        """
        while True:
            claim = self.take(model)
            if claim is not None or not self.waits_for_others():
                return claim
            self.pause()

    def take(self, model: dict[str, Any] | None = None) -> Claim | None:
        """Claim the next item that is free now, if there is one.

        Items that have not failed yet come first, so that a bad machine cannot use up all attempts of one.
        """
        failed = []
        base = None if model is None else base_of(model)

        def distance(item: WorkItem) -> tuple[bool, bool, int]:
            is_other = item.model != model
            # What needs other LoRAs alone is sooner ready than another model.
            return is_other and base_of(item.model) != base, is_other, self._precedence(item)

        for item in sorted(self._open.values(), key=distance):
            if self._is_settled(item):
                continue
            if self._attempts(item):
                failed.append(item)
            elif claim := self.claim(item):
                return claim
        return next((claim for item in failed if (claim := self.claim(item))), None)

    def claim(self, item: WorkItem) -> Claim | None:
        """Claim an item, or return None when another worker has it or nothing is left to do for it."""
        lease = self._leases.claim(item.id)
        if lease is None:
            return None
        if not self._is_settled(item):
            return Claim(item, self._attempts(item) + 1, lease, self._folder.progress_path(item.id))
        lease.release()
        return None

    def free(self) -> list[WorkItem]:
        """Return the items that no worker holds, in the order in which they should be made: failed ones last."""
        held = self._leases.held()
        items = [item for item in list(self._open.values()) if item.id not in held and not self._is_settled(item)]
        return sorted(items, key=lambda item: (self._attempts(item), self._precedence(item)))

    def waits_for_others(self) -> bool:
        """Leave the items that live workers hold to them, and return True when any others remain to be waited for."""
        for item_id in list(self._open):
            holding = self._leases.holding(item_id)
            if holding is None or holding.owner is None:
                continue
            is_alive = holding.beat > self._seen.setdefault(item_id, holding.beat)
            if is_alive or holding.owner.job == self._leases.owner.job:
                del self._open[item_id]
        return bool(self._open)

    def pause(self) -> None:
        """Wait a little before looking again."""
        time.sleep(self._poll_s)

    def _precedence(self, item: WorkItem) -> int:
        # Of an elastic launch, what only one rank can work on comes first, so that groups can share what is left at the end.
        return points_of(item.solver) if self._order.elastic else 0

    def _is_settled(self, item: WorkItem) -> bool:
        settled = self._order.is_settled(item.id, self._folder.record(item.id, check_files=True))
        if settled:
            self._open.pop(item.id, None)
        return settled

    def _attempts(self, item: WorkItem) -> int:
        record = self._folder.record(item.id, check_files=True)
        return 0 if record is None else record.attempt
