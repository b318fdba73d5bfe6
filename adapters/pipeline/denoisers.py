"""The denoisers of pipelines: their components, classes and blocks, and the attention kernels that they run with."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from genrun.adapters.errors import CacheError

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


NATIVE = "native"
PACKAGES = {
    "flash": ("flash_attn", "flash-attn"),
    "sage": ("sageattention", "sageattention"),
    "sparge": ("spas_sage_attn", "git+https://github.com/thu-ml/SpargeAttn.git"),
}
"""Kernel -> the module it needs, and the requirement to install with pip."""
DISPATCHING = (FLUX, HUNYUAN, WAN, QWEN, LTX)
"""Transformers whose attention goes through diffusers' dispatch; CogVideoX and SD3 call torch's kernel themselves."""
MASKED = (HUNYUAN, LTX)
"""Transformers of `DISPATCHING` that mask the text's padding at every call, which flash and sage refuse."""


def refusal(attention: str, model: str | None) -> str | None:
    """Say why a kernel cannot be used, with a remedy; None where it can. Loads nothing.

    Args:
        attention: native, flash, sage or sparge.
        model: class name of the transformer; None where it is not known yet, "" where there is none.
    """
    if attention == NATIVE:
        return None
    module, package = PACKAGES[attention]
    if find_spec(module) is None:
        return f"{attention} needs {module}, which is not installed, and a CUDA GPU: pip install {package}"
    if attention == "sparge":
        return "sparge is not in diffusers' attention dispatch of this version, which has flash and sage: choose one of them"
    return None if model is None else unsuited(attention, model)


def unsuited(attention: str, model: str) -> str | None:
    """Say why an installed kernel cannot be used on a transformer, by the name of its class; None where it can."""
    if attention == NATIVE:
        return None
    if model not in DISPATCHING:
        name = model or "a UNet"
        return f"{name} calls torch's attention itself, so that {attention} would change nothing: leave attention out"
    if model in MASKED:
        return f"{model} masks the padding of its text, and {attention} knows no masks: leave attention out"
    return None


@contextmanager
def attention_of(pipe: Any, attention: str) -> Iterator[None]:
    """Run the pipeline's transformers with a kernel, inside a with block. Raises CacheError."""
    models = transformers_of(pipe)
    for model in models or [None]:
        reason = refusal(attention, "" if model is None else type(model).__name__)
        if reason is not None:
            raise CacheError(reason)
    if attention == NATIVE:
        yield
        return
    logging.getLogger("diffusers.models.modeling_utils").setLevel(logging.ERROR)  # it warns of every use
    before = [(processor, processor._attention_backend) for model in models for processor in _processors(model)]
    try:
        for model in models:
            set_kernel(model, attention)
        yield
    except RuntimeError as error:
        if "backend" in str(error).lower():
            raise CacheError(f"attention: {attention}: {error}") from error
        raise
    finally:
        # Not diffusers' default: ring attention has a kernel of its own, which the next item needs again.
        for processor, backend in before:
            processor._attention_backend = backend


def set_kernel(model: Any, kernel: str) -> None:
    """Give a transformer a kernel, by its name in diffusers, and leave all other models theirs.

    diffusers makes it the default of the whole process too, and takes that back nowhere.
    """
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    default, _ = _AttentionBackendRegistry.get_active_backend()
    try:
        model.set_attention_backend(kernel)
    finally:
        _AttentionBackendRegistry.set_active_backend(default)


def _processors(model: Any) -> Iterator[Any]:
    """Iterate over the attention processors of a transformer that take a kernel."""
    for module in model.modules():
        processor = getattr(module, "processor", None)
        if processor is not None and hasattr(processor, "_attention_backend"):
            yield processor
