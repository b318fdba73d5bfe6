"""The ranks that evaluate one point together, and what a pipeline needs to work on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genrun.adapters.parallel.support import refusals
from genrun.adapters.session import RefusedError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh


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
    if slot.cfg > 1:
        from genrun.adapters.parallel.guidance import split_guidance

        split_guidance(pipe, slot.branches)
