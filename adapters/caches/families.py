"""Which transformer a pipeline has, and what is particular to it. Does not import torch."""

from __future__ import annotations

from typing import Any

FLUX, HUNYUAN, WAN = "FluxTransformer2DModel", "HunyuanVideoTransformer3DModel", "WanTransformer3DModel"
COGVIDEOX, SD3 = "CogVideoXTransformer3DModel", "SD3Transformer2DModel"
QWEN, LTX = "QwenImageTransformer2DModel", "LTXVideoTransformer3DModel"
ALL = (FLUX, HUNYUAN, WAN, COGVIDEOX, SD3, QWEN, LTX)

TRANSFORMERS = {
    "FluxPipeline": FLUX,
    "HunyuanVideoPipeline": HUNYUAN,
    "WanPipeline": WAN,
    "CogVideoXPipeline": COGVIDEOX,
    "StableDiffusion3Pipeline": SD3,
    "QwenImagePipeline": QWEN,
    "LTXPipeline": LTX,
    "StableDiffusionPipeline": "",
    "DDPMPipeline": "",
}
"""Pipeline class -> its transformer's class, "" for a UNet."""

BLOCK_LISTS = ("transformer_blocks", "single_transformer_blocks", "blocks")
"""Where transformers keep their blocks, in the order in which they run."""


def transformer_of(pipeline: str | None) -> str | None:
    """Class name of a pipeline class's transformer; "" for a UNet, None where only the loaded pipeline can tell."""
    return TRANSFORMERS.get(pipeline or "")


def denoisers(pipe: Any) -> list[Any]:
    """The transformers of a loaded pipeline, in the order of its experts; none for a UNet."""
    found = (getattr(pipe, name, None) for name in ("transformer", "transformer_2"))
    return [model for model in found if model is not None]


def blocks_of(model: Any) -> list[Any]:
    """The blocks of a transformer, in the order in which they run."""
    return [block for name in BLOCK_LISTS for block in getattr(model, name, ())]
