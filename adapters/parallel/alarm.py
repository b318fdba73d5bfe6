"""What becomes of the ranks of one evaluation when it fails on one of them: the others must not wait for it for ever."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

GRACE_S = 20.0
"""How long a rank that failed waits for the others of its slot to fail too, as they do when it is the item's fault."""

POLL_S = 0.05


class BrokenSlotError(Exception):
    """The ranks of one evaluation wait for one that has failed: they have to be killed and started again."""


class Alarm:
    """Of one slot; every rank of it whose evaluation fails sounds it.

    Where all ranks failed by themselves, as with a request that cannot be, they can go on to the next item. Where some did
    not, they are in the middle of a collective that will never end, and that nothing but the end of a process ends.

    Args:
        group: the ranks of the slot, gloo.
        grace_s: patience with the others, in seconds.
    """

    def __init__(self, group: ProcessGroup, grace_s: float = GRACE_S) -> None:
        self._group, self._grace_s = group, grace_s

    def sound(self, error: Exception) -> None:
        """Return when all ranks of the slot have failed.

        Raises:
            BrokenSlotError: they have not, and this process has to end so that they do.
        """
        import torch.distributed as dist

        from genrun.adapters.exchange import ExchangeError

        if isinstance(error, ExchangeError):
            # Told between two evaluations, to all ranks of the slot.
            return
        meeting, deadline = dist.barrier(self._group, async_op=True), time.monotonic() + self._grace_s
        while not meeting.is_completed():
            if time.monotonic() > deadline:
                message = (
                    f"{type(error).__name__}: {error}, on one of the ranks of an evaluation; the others wait for it"
                )
                raise BrokenSlotError(message) from error
            time.sleep(POLL_S)
