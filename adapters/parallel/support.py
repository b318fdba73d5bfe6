"""Which pipelines can be evaluated on several ranks, by the names of their classes, without importing torch."""

from __future__ import annotations

from collections.abc import Iterator

DOUBLED = ("CogVideoXPipeline", "LTXPipeline", "StableDiffusion3Pipeline", "StableDiffusionPipeline")
"""Pipelines with one call of a batch [without the prompt, with it] a step."""

TWICE = ("Flux2KleinPipeline", "FluxPipeline", "HunyuanVideoPipeline", "QwenImagePipeline", "WanPipeline")
"""Pipelines with two calls a step, which look at neither output before both are there."""

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
