"""The ranks that evaluate one point together, and what a pipeline needs to work on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genrun.adapters.parallel.support import BATCH, refusals, splits
from genrun.adapters.session import RefusedError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh

    from genrun.adapters.parallel.sharing import Sharing


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
        """Who computes the calls of a pipeline's models, by the name of the pipeline's class."""
        from genrun.adapters.parallel.sharing import Sharing

        call = self.everyone if BATCH in splits(pipeline, self.cfg) else self.tokens
        return Sharing(call, self.tokens, self.everyone)


def equip(pipe: Any, slot: Slot | None) -> None:
    """Have a freshly loaded pipeline evaluate its transformers on all ranks of the slot; every rank of it calls this alike.

    Raises:
        RefusedError: this pipeline, or this device, cannot; the message names what and why.
    """
    if slot is None:
        return
    if slot.backend == "xfuser":
        from genrun.adapters.parallel import xfuser

        xfuser.spread(pipe, slot)
        return
    for axis, message in refusals(type(pipe).__name__, slot.cfg, slot.ring, slot.ulysses):
        raise RefusedError(f"parallel.{axis}: {message}")
    if slot.ring * slot.ulysses > 1:
        from genrun.adapters.parallel.context import spread_context

        spread_context(pipe, slot)
    _note_sharing(pipe, slot)
    if slot.cfg > 1:
        from genrun.adapters.parallel.guidance import split_guidance

        split_guidance(pipe, slot.branches)


def _note_sharing(pipe: Any, slot: Slot) -> None:
    """Tell of each denoiser who computes its calls."""
    from genrun.adapters.parallel.context import TRANSFORMERS
    from genrun.adapters.parallel.sharing import share

    for name in ("unet", *TRANSFORMERS):
        model = getattr(pipe, name, None)
        if model is not None:
            share(model, slot.sharing(type(pipe).__name__))
