"""ToCa, token-wise feature caching (Zou et al., ICLR 2025, arXiv 2410.05317).

Attention and feed-forward outputs of every block are remembered for all tokens at an evaluation that is computed in full. At
the n - 1 evaluations after it, only the tokens that matter most are computed again, in the feed-forward layers. Which ones
is decided by the paper's four scores:

    S_i = influence_i + control_weight entropy_i + age_weight age_i,     raised by `bonus` for the best of four neighbours

- s1, influence: the attention that a token receives from others, a column sum of the attention map;
- s2, control: entropy of a token's attention to the text, where text tokens can be told apart;
- s3, age: evaluations since the token was last computed, over n;
- s4, spread: the best token of every run of four neighbours along the token sequence is raised.

The share of tokens falls linearly with depth, (1 + w_l - 2 w_l l/(L - 1)) ratio, and with time, as in the authors' schedule:
early blocks and early steps matter most. As in their released code, attention is never computed for some tokens only: its
cost is put into the feed-forward layers instead. Approximations: the attention map is seen by at most 64 queries spread
evenly over the tokens, without positional rotation, so that fused kernels are kept and no map of n x n is ever made;
neighbours are neighbours in the sequence.
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
class Toca:
    """Compute a few tokens of each feed-forward layer again and use remembered outputs for the rest.

    Memory of a context: attention and feed-forward outputs of the blocks, at most `memory_gb`; blocks beyond that are
    computed always.

    Attributes:
        interval: n, every n-th evaluation is computed in full; 1 computes always.
        ratio: share of the tokens that are computed again, on average over depth and time.
        depth_weight: how much the share falls from the first block to the last.
        step_weight: how much it falls from the first step to the last.
        control_weight: of the score for attention to the text.
        age_weight: of the score for a token's age.
        bonus: by which the best of four neighbours is raised, in times its score.
        memory_gb: most that a point's branch may remember.
        drift: under a parallel solver, largest change of a point's latents, relative to them, since it was last computed in
            full, at which anything is used again.
    """

    needs_order: ClassVar[str] = ""
    needs_every_step: ClassVar[bool] = False
    needs_whole: ClassVar[Mapping[str, str]] = {}
    models: ClassVar[tuple[str, ...]] = (
        denoisers.FLUX,
        denoisers.HUNYUAN,
        denoisers.WAN,
        denoisers.COGVIDEOX,
        denoisers.SD3,
    )
    package: ClassVar[str] = ""

    interval: int = 2
    ratio: float = 0.1
    depth_weight: float = 0.8
    step_weight: float = 0.4
    control_weight: float = 0.25
    age_weight: float = 0.25
    bonus: float = 0.6
    memory_gb: float = 8.0
    drift: float = 0.05

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ValueError(f"interval: must be at least 1, got {self.interval}")
        for name, most in (("ratio", 1.0), ("depth_weight", 1.0), ("step_weight", 1.0)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name}: must be between 0 and {most:g}, got {getattr(self, name)}")
        for name in ("control_weight", "age_weight", "bonus", "memory_gb", "drift"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: must be finite and not negative, got {getattr(self, name)}")

    def share(self, depth: float, time: float) -> float:
        """Share of the tokens to compute; depth and time run from 0 to 1."""
        by_depth = 1 + self.depth_weight - 2 * self.depth_weight * depth
        by_time = 1 + self.step_weight - 2 * self.step_weight * time
        return min(max(self.ratio * by_depth * by_time, 0.0), 1.0)

    def attach(self, model: Module, place: Place) -> States:
        """Hook attention and feed-forward layers of every block."""
        from genrun.adapters.caches.toca_hooks import Settings, TocaStates

        weights = (self.control_weight, self.age_weight, self.bonus)
        return TocaStates(Settings(self.interval, self.share, *weights, self.memory_gb * 1e9), model, place)
