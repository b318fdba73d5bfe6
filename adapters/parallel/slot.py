"""The ranks that make one model evaluation together: their groups, and what they do when it fails on one of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from genrun.adapters.parallel.support import BATCH, splits

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

    from genrun.adapters.parallel.sharing import Sharing

GRACE_S = 20.0
"""Seconds that a failed rank waits for the others of its slot to fail too, as they do when the item is at fault."""

# Seldom enough to cost no CPU.
POLL_S = 0.05


@dataclass(frozen=True)
class Slot:
    """This rank's place among the ranks that make each model evaluation together.

    Attributes:
        mesh: the device mesh of all ranks, with the dimensions data, time, cfg, ring, ulysses.
        cfg: ranks that share the two branches of the guidance, 1 or 2.
        ring: ranks that pass keys and values around.
        ulysses: ranks that exchange heads for tokens.
        backend: what shares the tokens out: diffusers or xfuser.
    """

    mesh: DeviceMesh
    cfg: int = 1
    ring: int = 1
    ulysses: int = 1
    backend: str = "diffusers"

    @property
    def branches(self) -> ProcessGroup:
        """The group over which the guidance branches are shared out."""
        return self.mesh.get_group("cfg")

    @property
    def tokens(self) -> ProcessGroup | None:
        """The group over which the tokens are shared out; None where each rank has all of them."""
        return self.mesh["ring", "ulysses"]._flatten().get_group() if self.ring * self.ulysses > 1 else None

    @property
    def everyone(self) -> ProcessGroup:
        """The group of all ranks of the slot."""
        return self.mesh["cfg", "ring", "ulysses"]._flatten().get_group()

    def meet(self) -> None:
        """Make the groups; every rank of the launch calls this alike, for torch makes groups of all of them at once."""
        self.mesh["ring", "ulysses"]._flatten()
        self.mesh["cfg", "ring", "ulysses"]._flatten()

    def sharing(self, pipeline: str) -> Sharing:
        """Return who computes the calls of a pipeline's models, by the name of the pipeline's class."""
        from genrun.adapters.parallel.sharing import Sharing

        call = self.everyone if BATCH in splits(pipeline, self.cfg) else self.tokens
        return Sharing(call, self.tokens, self.everyone)


class BrokenSlotError(Exception):
    """The ranks of one evaluation wait for one that has failed: they have to be killed and started again."""


class FailureBarrier:
    """A barrier of one slot, which every rank of it whose evaluation has failed enters.

    Where all ranks failed by themselves, as with a request that cannot be met, they can go on to the next item. Where some
    did not, they are in the middle of a collective that nothing but the end of a process ends.

    Args:
        group: the ranks of the slot, gloo.
        grace_s: how long the others are waited for, in seconds.
    """

    def __init__(self, group: ProcessGroup, grace_s: float = GRACE_S) -> None:
        self._group, self._grace_s = group, grace_s

    def wait(self, error: Exception) -> None:
        """Return when all ranks of the slot have failed.

        Raises:
            BrokenSlotError: they have not, and this process has to end so that they do.
        """
        import torch.distributed as dist

        from genrun.adapters.parallel.exchange import ExchangeError

        if isinstance(error, ExchangeError):
            # Told between two evaluations, to all ranks of the slot.
            return
        entered, deadline = dist.barrier(self._group, async_op=True), time.monotonic() + self._grace_s
        # torch returns no work for a process that is not in the group.
        while entered is not None and not entered.is_completed():
            if time.monotonic() > deadline:
                message = (
                    f"{type(error).__name__}: {error}, on one of the ranks of an evaluation; the others wait for it"
                )
                raise BrokenSlotError(message) from error
            time.sleep(POLL_S)
