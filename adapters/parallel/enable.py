"""Have a loaded pipeline make its model evaluations on all ranks of a slot."""

from __future__ import annotations

from typing import Any

from genrun.adapters.errors import RefusedError
from genrun.adapters.parallel.sharing import share
from genrun.adapters.parallel.slot import Slot
from genrun.adapters.parallel.support import refusals
from genrun.adapters.pipeline.denoisers import COMPONENTS


def enable_parallelism(pipe: Any, slot: Slot) -> None:
    """Have a freshly loaded pipeline evaluate its denoisers on all ranks of the slot; every rank of it calls this alike.

    Raises:
        RefusedError: this pipeline, or this device, cannot; the message names what and why.
    """
    if slot.backend == "xfuser":
        from genrun.adapters.parallel import xfuser

        xfuser.enable(pipe, slot)
        return
    name = type(pipe).__name__
    for axis, message in refusals(name, slot.cfg, slot.ring, slot.ulysses):
        raise RefusedError(f"parallel.{axis}: {message}")
    if slot.ring * slot.ulysses > 1:
        from genrun.adapters.parallel.context import share_tokens

        share_tokens(pipe, slot)
    for component in COMPONENTS:
        model = getattr(pipe, component, None)
        if model is not None:
            share(model, slot.sharing(name))
    if slot.cfg > 1:
        from genrun.adapters.parallel.guidance import split_guidance

        split_guidance(pipe, slot.branches)
