"""MagCache (Ma et al. 2025, arXiv 2506.09045): steps are left out while the known drift of the residual's size is small."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from genrun.adapters.caches.contract import CacheError, Place, States
from genrun.adapters.pipeline import denoisers

if TYPE_CHECKING:
    from torch.nn import Module


@dataclass(frozen=True)
class Mag:
    """Reuse the residual of all blocks for steps at which its size, known from a calibration, has hardly drifted.

    Steps that a solver leaves out count towards the drift. Memory of a context: two hidden states.

    Attributes:
        threshold: largest drift, summed over the steps left out; 0 computes always.
        skips: most evaluations in a row that are left out.
        warmup: share of the first steps that are all computed.
        ratios: size of the residual at each step over that at the step before; measure them with `genrun caches mag
            --calibrate MODEL`. Flux has the authors' own.
    """

    needs_order: ClassVar[str] = (
        "its ratios say how a residual changes from one step to the next, not from one round to the next at a step"
    )
    needs_every_step: ClassVar[bool] = False
    needs_whole: ClassVar[Mapping[str, str]] = {}
    models: ClassVar[tuple[str, ...]] = denoisers.ALL
    package: ClassVar[str] = ""

    threshold: float = 0.06
    skips: int = 3
    warmup: float = 0.2
    ratios: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < float("inf"):
            raise ValueError(f"threshold: must be finite and not negative, got {self.threshold}")
        if self.skips < 1:
            raise ValueError(f"skips: must be at least 1, got {self.skips}")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup: must be between 0 and 1, got {self.warmup}")
        if self.ratios is not None and (len(self.ratios) < 2 or not all(0 < r < float("inf") for r in self.ratios)):
            raise ValueError("ratios: must be two or more numbers above 0")

    def unmet(self, model: str | None) -> str | None:
        """Say what is missing for a transformer, with a remedy; None where nothing is."""
        if self.ratios is not None or model in (None, denoisers.FLUX):
            return None
        return (
            f"mag needs the ratios of this checkpoint: measure them with `genrun caches mag --calibrate MODEL` and add "
            f"them as ratios: [...]; only {denoisers.FLUX} has known ones"
        )

    def attach(self, model: Module, place: Place) -> States:
        """Hook every block. Raises CacheError without ratios."""
        import torch
        from diffusers.hooks.mag_cache import (
            _MAG_CACHE_BLOCK_HOOK,
            _MAG_CACHE_LEADER_BLOCK_HOOK,
            FLUX_MAG_RATIOS,
            MagCacheConfig,
            apply_mag_cache,
            nearest_interp,
        )

        from genrun.adapters.caches.diffusers_hooks import HookedStates, beneath_split

        missing = self.unmet(type(model).__name__)
        if missing:
            raise CacheError(missing)
        known = FLUX_MAG_RATIOS if self.ratios is None else torch.tensor(self.ratios)
        config = MagCacheConfig(
            threshold=self.threshold or -1.0,
            max_skip_steps=self.skips,
            retention_ratio=self.warmup,
            mag_ratios=known,
            num_inference_steps=len(known),
        )
        with beneath_split(model):
            apply_mag_cache(model, config)

        def prepare(state: Any, here: Place) -> None:
            """Tell the step by its index: diffusers counts calls, and a solver may leave steps out."""
            if config.num_inference_steps != here.num_steps:
                config.mag_ratios = nearest_interp(known, here.num_steps)
                config.num_inference_steps = here.num_steps
            assert isinstance(config.mag_ratios, torch.Tensor)
            if here.index > state.step_index:
                state.accumulated_ratio *= float(config.mag_ratios[state.step_index : here.index].prod())
            state.step_index = here.index

        return HookedStates(model, (_MAG_CACHE_LEADER_BLOCK_HOOK, _MAG_CACHE_BLOCK_HOOK), prepare)
