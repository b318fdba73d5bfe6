"""The denoisers of pipelines: their components, classes and blocks. Imports no torch."""

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
    "WanImageToVideoPipeline": WAN,
    "HunyuanVideoImageToVideoPipeline": HUNYUAN,
    "CogVideoXImageToVideoPipeline": COGVIDEOX,
    "FluxKontextPipeline": FLUX,
    "QwenImageEditPipeline": QWEN,
    "QwenImageEditPlusPipeline": QWEN,
    "HunyuanVideo15Pipeline": "HunyuanVideo15Transformer3DModel",
    "HunyuanVideo15ImageToVideoPipeline": "HunyuanVideo15Transformer3DModel",
    "LTX2Pipeline": "LTX2VideoTransformer3DModel",
    "LTX2ImageToVideoPipeline": "LTX2VideoTransformer3DModel",
    "Flux2Pipeline": "Flux2Transformer2DModel",
    "Flux2KleinPipeline": "Flux2Transformer2DModel",
    "ZImagePipeline": "ZImageTransformer2DModel",
    "MochiPipeline": "MochiTransformer3DModel",
    "SanaPipeline": "SanaTransformer2DModel",
    "StableDiffusionXLPipeline": "",
    "StableDiffusionPipeline": "",
    "DDPMPipeline": "",
}
"""Pipeline class -> its transformer's class, "" for a UNet."""

COMPONENTS = ("transformer", "transformer_2", "unet")
"""Components that are evaluated at every step."""

BLOCK_LISTS = ("transformer_blocks", "single_transformer_blocks", "blocks")
"""Attributes in which transformers keep their blocks, in the order in which the blocks run."""


def transformer_of(pipeline: str | None) -> str | None:
    """Name the transformer's class of a pipeline class; "" for a UNet, None where only the loaded pipeline tells."""
    return TRANSFORMERS.get(pipeline or "")


def transformers_of(pipe: Any) -> list[Any]:
    """Return the transformers of a loaded pipeline, in the order of its experts; none for a UNet."""
    found = (getattr(pipe, name, None) for name in ("transformer", "transformer_2"))
    return [model for model in found if model is not None]


def blocks_of(model: Any) -> list[Any]:
    """Return the blocks of a transformer, in the order in which they run."""
    return [block for name in BLOCK_LISTS for block in getattr(model, name, ())]
