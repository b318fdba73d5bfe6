"""Pyramid Attention Broadcast (Zhao et al. 2024, arXiv 2408.12588): attention outputs are used again for some evaluations.

diffusers counts the calls of each attention module and shares its output between all of them, so that of two calls a step
(cond, uncond) one would be handed the other's: here each context has its own count and output. From step to step that is the
paper's broadcast; across rounds, attention at a step is computed every n-th time that the step is evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from genrun.adapters.caches.contract import Place, States
from genrun.adapters.pipeline import denoisers

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True)
class PyramidAttention:
    """Compute attention every n-th evaluation and use its output in between; the rest of a block is always computed.

    Memory of a context: the output of each attention module.

    Attributes:
        spatial: n of self-attention, joint attention included; 1 computes always.
        cross: n of cross-attention; 1 computes always.
        start: timestep (1000 is noise) below which outputs are used again.
        stop: timestep above which they are.
        drift: under a parallel solver, largest change of a point's latents, relative to them, since it was last computed in
            full, at which anything is used again.
    """

    needs_order: ClassVar[str] = ""
    needs_every_step: ClassVar[bool] = False
    needs_whole: ClassVar[Mapping[str, str]] = {}
    models: ClassVar[tuple[str, ...]] = denoisers.ALL
    package: ClassVar[str] = ""

    spatial: int = 2
    cross: int = 2
    start: int = 800
    stop: int = 100
    drift: float = 0.05

    def __post_init__(self) -> None:
        for name in ("spatial", "cross"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.drift < float("inf"):
            raise ValueError(f"drift: must be finite and not negative, got {self.drift}")
        if self.start <= self.stop:
            raise ValueError(f"start: must be above stop, got {self.start}")

    def attach(self, model: Module, place: Place) -> States:
        """Hook every attention module."""
        from diffusers.hooks.pyramid_attention_broadcast import (
            _PYRAMID_ATTENTION_BROADCAST_HOOK,
            PyramidAttentionBroadcastConfig,
            apply_pyramid_attention_broadcast,
        )

        from genrun.adapters.caches.diffusers_hooks import HookedStates

        within = (self.stop, self.start)
        config = PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=self.spatial,
            cross_attention_block_skip_range=self.cross,
            spatial_attention_timestep_skip_range=within,
            cross_attention_timestep_skip_range=within,
            current_timestep_callback=lambda: place.timestep,  # pyright: ignore[reportArgumentType]
        )
        apply_pyramid_attention_broadcast(model, config)
        return HookedStates(model, (_PYRAMID_ATTENTION_BROADCAST_HOOK,))
