"""FasterCache (Lv et al. 2024, arXiv 2410.19355): attention is extrapolated, the unconditional half derived (diffusers)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from genrun.adapters.caches.contract import Place, States
from genrun.adapters.parallel.support import BATCH
from genrun.adapters.pipeline import denoisers

if TYPE_CHECKING:
    from torch.nn import Module

BATCHED = {denoisers.COGVIDEOX: "BFCHW", denoisers.SD3: "BCHW"}
"""Transformers that are called once with both halves of the guidance, and the layout of their latents."""
HALVED = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep")
"""Arguments that hold both halves."""


@dataclass(frozen=True)
class Faster:
    """Extrapolate attention outputs between every n-th step, and derive the unconditional half from the conditional one.

    Where cond and uncond are calls of their own, or guidance is embedded, only attention is extrapolated. Memory of a
    context: two outputs of each attention module, and two latents.

    Attributes:
        attention: n of attention; 1 computes always.
        unconditional: n of the unconditional half; 1 computes always.
        weight: of the extrapolation from the last two attention outputs.
        attention_below: timestep (1000 is noise) below which attention is extrapolated.
        unconditional_below: timestep below which the unconditional half is derived.
    """

    needs_order: ClassVar[str] = (
        "it extrapolates from the last two steps and lets the guidance grow with time, which across rounds stands still"
    )
    needs_every_step: ClassVar[bool] = True
    needs_whole: ClassVar[Mapping[str, str]] = {BATCH: "it derives one half from the other"}
    models: ClassVar[tuple[str, ...]] = (*BATCHED, denoisers.FLUX, denoisers.HUNYUAN, denoisers.WAN)
    package: ClassVar[str] = ""

    attention: int = 2
    unconditional: int = 5
    weight: float = 0.5
    attention_below: int = 681
    unconditional_below: int = 641

    def __post_init__(self) -> None:
        for name in ("attention", "unconditional"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.weight <= 1:
            raise ValueError(f"weight: must be between 0 and 1, got {self.weight}")

    def attach(self, model: Module, place: Place) -> States:
        """Hook the transformer and every attention module."""
        from diffusers.hooks.faster_cache import (
            _FASTER_CACHE_BLOCK_HOOK,
            _FASTER_CACHE_DENOISER_HOOK,
            FasterCacheBlockState,
            FasterCacheConfig,
            apply_faster_cache,
        )
        from diffusers.utils.logging import get_logger

        from genrun.adapters.caches.diffusers_hooks import HookedStates, hooks_of

        config = FasterCacheConfig(
            spatial_attention_block_skip_range=self.attention,
            spatial_attention_timestep_skip_range=(-1, self.attention_below),
            unconditional_batch_skip_range=self.unconditional,
            unconditional_batch_timestep_skip_range=(-1, self.unconditional_below),
            attention_weight_callback=lambda _: self.weight,
            tensor_format=BATCHED.get(type(model).__name__, "BCFHW"),
            is_guidance_distilled=type(model).__name__ not in BATCHED,
            current_timestep_callback=lambda: place.timestep,  # pyright: ignore[reportArgumentType]
            _unconditional_conditional_input_kwargs_identifiers=list(HALVED),
        )
        logger = get_logger("diffusers.hooks.faster_cache")
        level = logger.level
        logger.setLevel("ERROR")  # diffusers warns of every use
        try:
            apply_faster_cache(model, config)
        finally:
            logger.setLevel(level)

        def compute_first(state: Any, _: Place) -> None:
            """Compute where nothing is remembered: diffusers takes it for granted that sampling starts at time 1000."""
            if isinstance(state, FasterCacheBlockState) and state.cache is None:
                state.iteration = self.attention

        names = (_FASTER_CACHE_DENOISER_HOOK, _FASTER_CACHE_BLOCK_HOOK)
        hooks = list(hooks_of(model, names)) if type(model).__name__ in BATCHED else []

        def has_halves(_: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            """Split no call of one row alone: one without guidance, or SD3's of the layers that are left."""
            latents = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            for hook in hooks:
                hook.is_guidance_distilled = len(latents) < 2

        told = model.register_forward_pre_hook(has_halves, with_kwargs=True)
        return HookedStates(model, names, compute_first, told.remove)
