"""MagCache's ratios of a checkpoint: how the size of the blocks' residual drifts from step to step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, ClassVar

from diffusers.hooks.mag_cache import (
    _MAG_CACHE_BLOCK_HOOK,
    _MAG_CACHE_LEADER_BLOCK_HOOK,
    MagCacheConfig,
    apply_mag_cache,
)
from torch.nn import Module

from genrun.adapters.adapter import Adapter
from genrun.adapters.caches.contract import Place, States
from genrun.adapters.caches.diffusers_hooks import HookedStates
from genrun.adapters.caches.mag import Mag
from genrun.adapters.sampling.call import SamplingRequest
from genrun.adapters.sampling.generate import sample
from genrun.solvers.sequential import Sequential

ENDLESS = 10**9
"""Steps after which diffusers would print what it measured and begin again."""


@dataclass(frozen=True)
class MagCalibration:
    """Computes every block and measures the residual's size. Not a cache that a job can name."""

    needs_order: ClassVar[str] = Mag.needs_order
    needs_every_step: ClassVar[bool] = True
    needs_whole: ClassVar[Mapping[str, str]] = {}
    models: ClassVar[tuple[str, ...]] = Mag.models
    package: ClassVar[str] = ""

    found: dict[str, list[float]] = field(default_factory=dict)

    def attach(self, model: Module, place: Place) -> States:
        """Hook every block."""
        apply_mag_cache(model, MagCacheConfig(calibrate=True, num_inference_steps=ENDLESS))

        def note(state: Any, here: Place) -> None:
            self.found[here.branch] = state.calibration_ratios

        return HookedStates(model, (_MAG_CACHE_LEADER_BLOCK_HOOK, _MAG_CACHE_BLOCK_HOOK), note)


def calibrate(pipe: Any, adapter: Adapter, requests: Sequence[SamplingRequest]) -> list[float]:
    """Return the ratio of each step, the mean over samples and branches. Raises CacheError."""
    rows = []
    for request in requests:
        calibration = MagCalibration()
        sample(pipe, adapter, request, Sequential(), cache=calibration)
        rows += calibration.found.values()
    return [round(fmean(ratios), 5) for ratios in zip(*rows, strict=True)]
