"""Attention kernels of a job's `attention:`: diffusers' own dispatch, and where to get those that are missing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from genrun.adapters.errors import CacheError
from genrun.adapters.pipeline import denoisers
from genrun.adapters.pipeline.denoisers import transformers_of

NATIVE = "native"
PACKAGES = {
    "flash": ("flash_attn", "flash-attn"),
    "sage": ("sageattention", "sageattention"),
    "sparge": ("spas_sage_attn", "git+https://github.com/thu-ml/SpargeAttn.git"),
}
"""Kernel -> the module it needs, and the requirement to install with pip."""
DISPATCHING = (denoisers.FLUX, denoisers.HUNYUAN, denoisers.WAN, denoisers.QWEN, denoisers.LTX)
"""Transformers whose attention goes through diffusers' dispatch; CogVideoX and SD3 call torch's kernel themselves."""
MASKED = (denoisers.HUNYUAN, denoisers.LTX)
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
