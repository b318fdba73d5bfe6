"""TaylorSeer (Liu et al. 2025, arXiv 2503.06923): attention outputs are predicted by a Taylor series over the steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from genrun.adapters.caches.contract import Place, States
from genrun.adapters.pipeline import denoisers

if TYPE_CHECKING:
    from torch.nn import Module


ATTENTION = r"(single_)?(transformer_)?blocks\.\d+\.attn\d?"
"""Attention modules of the blocks; diffusers' own pattern misses those that are numbered."""


@dataclass(frozen=True)
class TaylorSeer:
    """Compute every n-th step, and predict attention outputs of the others by differences over the steps before.

    Memory of a context: order + 1 outputs of each attention module, in the model's dtype.

    Attributes:
        interval: n; 1 computes always.
        order: of the series.
        warmup: first steps that are all computed.
        cooldown: last steps that are all computed.
        lite: predict the transformer's last projection alone and leave all blocks out, which needs little memory.
    """

    needs_order: ClassVar[str] = (
        "its series runs over steps at equal distances, and across rounds there is no time to expand in"
    )
    needs_every_step: ClassVar[bool] = True
    needs_whole: ClassVar[Mapping[str, str]] = {}
    models: ClassVar[tuple[str, ...]] = denoisers.ALL
    package: ClassVar[str] = ""

    interval: int = 3
    order: int = 1
    warmup: int = 3
    cooldown: int = 0
    lite: bool = False

    def __post_init__(self) -> None:
        for name, least in (("interval", 1), ("order", 0), ("warmup", 1), ("cooldown", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: must be at least {least}, got {getattr(self, name)}")

    def attach(self, model: Module, place: Place) -> States:
        """Hook every attention module, or with `lite` every block and the last projection."""
        from diffusers.hooks.taylorseer_cache import (
            _TAYLORSEER_CACHE_HOOK,
            TaylorSeerCacheConfig,
            apply_taylorseer_cache,
        )

        from genrun.adapters.caches.diffusers_hooks import (
            TEXT_END_HOOK,
            HookedStates,
            beneath_split,
            hooks_of,
            pass_text_on,
        )

        config = TaylorSeerCacheConfig(
            cache_interval=self.interval,
            disable_cache_before_step=self.warmup,
            max_order=self.order,
            taylor_factors_dtype=next(model.parameters()).dtype,
            use_lite_mode=self.lite,
            cache_identifiers=None if self.lite else [ATTENTION],
        )
        with beneath_split(model):
            pass_text_on(model)
            apply_taylorseer_cache(model, config)
        names = (_TAYLORSEER_CACHE_HOOK, TEXT_END_HOOK)
        hooks = [hook for hook in hooks_of(model, names) if hasattr(hook, "disable_cache_after_step")]

        def prepare(_: Any, here: Place) -> None:
            """Tell how long the trajectory is: diffusers counts the last steps from the first."""
            for hook in hooks:
                hook.disable_cache_after_step = here.num_steps - self.cooldown

        return HookedStates(model, names, prepare)
