"""First block cache: run the first block, and the others only where its answer has changed (diffusers' FirstBlockCache).

After ParaAttention (github.com/chengzeyi/ParaAttention), a simpler TeaCache (arXiv 2411.19108). The other blocks' residual
is remembered from the last evaluation that computed them, so that errors do not add up from one reuse to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from genrun.adapters.caches.contract import Place, States
from genrun.adapters.pipeline import denoisers

if TYPE_CHECKING:
    from torch.nn import Module

ALWAYS = -1.0
"""A threshold that no change is below."""


@dataclass(frozen=True)
class FirstBlock:
    """Reuse the residual of all blocks but the first where the first block's own residual has hardly changed.

    Memory of a context: five hidden states.

    Attributes:
        threshold: largest mean absolute change of the first block's residual, relative to it; 0 computes always.
    """

    needs_order: ClassVar[str] = ""
    needs_every_step: ClassVar[bool] = False
    needs_whole: ClassVar[Mapping[str, str]] = {}
    models: ClassVar[tuple[str, ...]] = denoisers.ALL
    package: ClassVar[str] = ""

    threshold: float = 0.05

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < float("inf"):
            raise ValueError(f"threshold: must be finite and not negative, got {self.threshold}")

    def attach(self, model: Module, place: Place) -> States:
        """Hook every block."""
        from diffusers.hooks.first_block_cache import (
            _FBC_BLOCK_HOOK,
            _FBC_LEADER_BLOCK_HOOK,
            FirstBlockCacheConfig,
            apply_first_block_cache,
        )

        from genrun.adapters.caches.diffusers_hooks import (
            TEXT_END_HOOK,
            HookedStates,
            beneath_split,
            fit_to_calls,
            hooks_of,
            pass_text_on,
        )
        from genrun.adapters.parallel.sharing import sharing_of

        with beneath_split(model):
            pass_text_on(model)
            apply_first_block_cache(model, FirstBlockCacheConfig(threshold=self.threshold or ALWAYS))
        heads, followers = (hooks_of(model, (name,)) for name in (_FBC_LEADER_BLOCK_HOOK, _FBC_BLOCK_HOOK))
        fit_to_calls(heads, followers, sharing_of(model))
        return HookedStates(model, (_FBC_LEADER_BLOCK_HOOK, _FBC_BLOCK_HOOK, TEXT_END_HOOK))
