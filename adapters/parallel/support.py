"""The axes of parallelism, and the pipelines that support each, by the names of their classes. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

BATCH, TOKENS = "batch", "tokens"
"""Parts into which ranks split one model call: the halves of a doubled batch, or the tokens."""

DOUBLED = (
    "CogVideoXImageToVideoPipeline",
    "CogVideoXPipeline",
    "LTXPipeline",
    "MochiPipeline",
    "SanaPipeline",
    "StableDiffusion3Pipeline",
    "StableDiffusionPipeline",
)
"""Pipelines with one call of a batch [without the prompt, with it] a step."""

TWICE = (
    "Flux2KleinPipeline",
    "FluxKontextPipeline",
    "FluxPipeline",
    "HunyuanVideoImageToVideoPipeline",
    "HunyuanVideoPipeline",
    "QwenImagePipeline",
    "WanImageToVideoPipeline",
    "WanPipeline",
)
"""Pipelines with two calls a step, which look at neither output before both are there."""

TRUE_CFG = {
    "FluxKontextPipeline": 1.0,
    "FluxPipeline": 1.0,
    "HunyuanVideoImageToVideoPipeline": 1.0,
    "HunyuanVideoPipeline": 1.0,
    "QwenImagePipeline": 4.0,
}
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
"""Pipelines whose transformers' tokens can be split among ranks."""

MASKED = ("HunyuanVideoPipeline", "QwenImagePipeline")
"""Pipelines of `CONTEXT` whose attention may have a mask."""


def refusals(pipeline: str, cfg: int = 1, ring: int = 1, ulysses: int = 1) -> Iterator[tuple[str, str]]:
    """List the axes that a pipeline cannot use: (axis, what is wrong and what to do)."""
    if cfg > 1 and pipeline not in DOUBLED + TWICE:
        yield "cfg", f"it is not known how {pipeline} guides. Write 1; known are {', '.join(sorted(DOUBLED + TWICE))}"
    for axis, size in (("ring", ring), ("ulysses", ulysses)):
        if size > 1 and pipeline not in CONTEXT:
            yield axis, f"{pipeline} cannot share its tokens out. Use parallel.time; known are {', '.join(CONTEXT)}"
    if ring > 1 and pipeline in MASKED:
        yield "ring", f"{pipeline} masks its text, and the ring knows no masks. Use parallel.ulysses"


def uneven(transformer: str, heads: Any, ulysses: int) -> str | None:
    """Say why so many ranks cannot exchange a transformer's attention heads, with the numbers that can; or None.

    Args:
        transformer: name of its class.
        heads: as its configuration says, which may say anything; ranks are then refused when it is loaded.
        ulysses: ranks.
    """
    if type(heads) is not int or not 0 < heads < 1024 or heads % ulysses == 0:
        return None
    fitting = ", ".join(str(n) for n in range(1, heads + 1) if heads % n == 0)
    return f"{ulysses} ranks cannot share the {heads} attention heads of {transformer} equally; write one of {fitting}"


def no_ring(device: str, dtype: str) -> str | None:
    """Say why a ring cannot go over such devices, or through weights of a dtype, with what to do; or None.

    Args:
        device: its type; what is not known yet is let through.
        dtype: of the transformer's weights, as torch names it.
    """
    if device == "cpu":
        return (
            "needs GPUs: it puts attention together from parts and their log-sum-exp, which diffusers' attention on a CPU "
            "does not return; use parallel.ulysses"
        )
    return "needs model.dtype: bfloat16 or float16, as flash attention does" if dtype == "float32" else None


def splits(pipeline: str | None, cfg: int = 1, ring: int = 1, ulysses: int = 1) -> frozenset[str]:
    """Return what these axes split of one model call: two calls of the guidance stay whole, each on its own ranks."""
    by_batch = cfg > 1 and pipeline in DOUBLED
    return frozenset((BATCH,) * by_batch + (TOKENS,) * (ring * ulysses > 1))


def unguided(pipeline: str | None, sampling: Mapping[str, Any], *, has_negative: bool) -> str | None:
    """Say why a call has no second branch for `cfg: 2` to share, with a remedy; None where it has.

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


AXES = ("data", "time", "cfg", "ring", "ulysses")


def product(sizes: Mapping[str, object], prefix: str = "") -> str:
    """Name a product, without the factors beyond data and time that are 1: "data x time x ulysses = 2 x 2 x 4"."""
    shown = {axis: size for axis, size in sizes.items() if axis in ("data", "time") or size != 1}
    return f"{' x '.join(prefix + axis for axis in shown)} = {' x '.join(map(str, shown.values()))}"
