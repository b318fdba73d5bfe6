"""Context-parallel plans: where each transformer's tokens are split among ranks, and where its output is gathered.

diffusers knows this of some (`_cp_plan`); the others' plans are ours, for the forward passes of diffusers 0.42: after the
patches and the text have been embedded, both streams are split along the tokens, each rank keeps its part of either
through all blocks, and the last projection's output is gathered. Attention sees all tokens in the order rank by rank,
which only a mask or positions, given with the tokens, could tell from the usual one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ContextPlan:
    """The plan of one class of transformer.

    Attributes:
        modules: a `cp_plan` for `enable_parallelism`, or None for diffusers' own.
        whole: modules that every rank runs on all their tokens; their attention stays as it is.
        masked: lists of blocks, and which of their arguments is a mask over [image, text], to follow the tokens' order.
        direct: its attention processors call `scaled_dot_product_attention` themselves.
    """

    modules: Mapping[str, Any] | None = None
    whole: tuple[str, ...] = ()
    masked: tuple[tuple[str, ...], int] | None = None
    direct: bool = False


def plan_for(transformer: Any) -> ContextPlan:
    """Return the plan for a transformer: ours, or diffusers' own."""
    return _PLANS.get(type(transformer).__name__, ContextPlan)()


def _two_streams(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Split the tokens of image and text before the first block, (B, S, C), and gather the output."""
    from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput

    tokens = ContextParallelInput(split_dim=1, expected_dims=3)
    first = {"hidden_states": tokens, "encoder_hidden_states": tokens}
    return {**extra, "transformer_blocks.0": first, "proj_out": ContextParallelOutput(gather_dim=1, expected_dims=3)}


def _hunyuanvideo() -> ContextPlan:
    """Split positions that `rope` makes, (S, D) each; the text refiner sees the whole text on every rank."""
    from diffusers.models._modeling_parallel import ContextParallelInput

    positions = ContextParallelInput(split_dim=0, expected_dims=2, split_output=True)
    blocks = ("transformer_blocks", "single_transformer_blocks")
    return ContextPlan(_two_streams({"rope": {0: positions, 1: positions}}), ("context_embedder",), (blocks, 3))


def _cogvideox() -> ContextPlan:
    """Split positions given as an argument, (S, D) each; the patch embedding takes text and image together."""
    from diffusers.models._modeling_parallel import ContextParallelInput

    positions = ContextParallelInput(split_dim=0, expected_dims=2)
    return ContextPlan(_two_streams({"": {"image_rotary_emb": [positions, positions]}}), direct=True)


def _sd3() -> ContextPlan:
    """Split no positions: they are in the patch embedding already."""
    return ContextPlan(_two_streams({}), direct=True)


_PLANS = {
    "CogVideoXTransformer3DModel": _cogvideox,
    "HunyuanVideoTransformer3DModel": _hunyuanvideo,
    "SD3Transformer2DModel": _sd3,
}
