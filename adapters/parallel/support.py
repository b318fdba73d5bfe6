"""Which pipelines can be evaluated on several ranks, by the names of their classes, without importing torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

BATCH, TOKENS = "batch", "tokens"
"""What of one model call is split among ranks: the halves of a doubled batch, or the tokens."""

DOUBLED = ("CogVideoXPipeline", "LTXPipeline", "StableDiffusion3Pipeline", "StableDiffusionPipeline")
"""Pipelines with one call of a batch [without the prompt, with it] a step."""

TWICE = ("Flux2KleinPipeline", "FluxPipeline", "HunyuanVideoPipeline", "QwenImagePipeline", "WanPipeline")
"""Pipelines with two calls a step, which look at neither output before both are there."""

TRUE_CFG = {"FluxPipeline": 1.0, "HunyuanVideoPipeline": 1.0, "QwenImagePipeline": 4.0}
"""Pipelines of two calls that guide by `true_cfg_scale` and a negative prompt alone, and its default."""

CONTEXT = (
    "CogVideoXPipeline",
    "Flux2KleinPipeline",
    "Flux2Pipeline",
    "FluxPipeline",
    "HunyuanVideoPipeline",
    "QwenImagePipeline",
    "StableDiffusion3Pipeline",
    "WanPipeline",
)
"""Pipelines whose transformers' tokens can be shared out."""

MASKED = ("HunyuanVideoPipeline", "QwenImagePipeline")
"""Those among them whose attention may have a mask."""


def refusals(pipeline: str, cfg: int = 1, ring: int = 1, ulysses: int = 1) -> Iterator[tuple[str, str]]:
    """Axes that a pipeline cannot use: (axis, what is wrong and what to do)."""
    if cfg > 1 and pipeline not in DOUBLED + TWICE:
        yield "cfg", f"it is not known how {pipeline} guides. Write 1; known are {', '.join(sorted(DOUBLED + TWICE))}"
    for axis, size in (("ring", ring), ("ulysses", ulysses)):
        if size > 1 and pipeline not in CONTEXT:
            yield axis, f"{pipeline} cannot share its tokens out. Use parallel.time; known are {', '.join(CONTEXT)}"
    if ring > 1 and pipeline in MASKED:
        yield "ring", f"{pipeline} masks its text, and the ring knows no masks. Use parallel.ulysses"


def splits(pipeline: str | None, cfg: int = 1, ring: int = 1, ulysses: int = 1) -> frozenset[str]:
    """What of one model call these axes split: two calls of the guidance stay whole, each on its own ranks."""
    by_batch = cfg > 1 and pipeline in DOUBLED
    return frozenset((BATCH,) * by_batch + (TOKENS,) * (ring * ulysses > 1))


def unguided(pipeline: str | None, sampling: Mapping[str, Any], *, has_negative: bool) -> str | None:
    """Why a call has no second branch for `cfg: 2` to share, with a remedy, or None.

    Args:
        pipeline: name of its class.
        sampling: the resolved section: guidance_scale, options.
        has_negative: whether every call has a negative prompt.
    """
    if pipeline in TRUE_CFG:
        scale = (sampling.get("options") or {}).get("true_cfg_scale", TRUE_CFG[pipeline])
        if isinstance(scale, int | float) and scale > 1 and has_negative:
            return None
        return (
            f"{pipeline} has a second branch only with a negative prompt for every prompt and options: "
            "{true_cfg_scale: 4.0}, or any above 1. Write both, or cfg: 1"
        )
    scale = sampling.get("guidance_scale")
    if pipeline in DOUBLED + TWICE and isinstance(scale, int | float) and scale <= 1:
        return f"guidance_scale: {scale:g} leaves one branch, with nothing to share. Raise it above 1, or write cfg: 1"
    return None
