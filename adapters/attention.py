"""Attention kernels of a job's `attention:`: diffusers' own dispatch, and where to get what is missing."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from genrun.adapters.caches import families
from genrun.adapters.caches.contract import CacheError
from genrun.adapters.caches.families import denoisers

NATIVE = "native"
PACKAGES = {
    "flash": ("flash_attn", "flash-attn"),
    "sage": ("sageattention", "sageattention"),
    "sparge": ("spas_sage_attn", "git+https://github.com/thu-ml/SpargeAttn.git"),
}
"""Kernel -> the module it needs, and what pip installs it by."""
DISPATCHING = (families.FLUX, families.HUNYUAN, families.WAN, families.QWEN, families.LTX)
"""Transformers whose attention goes through diffusers' dispatch; CogVideoX and SD3 call torch's kernel themselves."""


def refusal(attention: str, model: str | None) -> str | None:
    """Why a kernel cannot be used, with a remedy, or None. Loads nothing.

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
    if model is not None and model not in DISPATCHING:
        name = model or "a UNet"
        return f"{name} calls torch's attention itself, so that {attention} would change nothing: leave attention out"
    return None


@contextmanager
def attention_of(pipe: Any, attention: str) -> Iterator[None]:
    """The pipeline's transformers with a kernel. Raises CacheError."""
    models = denoisers(pipe)
    for model in models or [None]:
        reason = refusal(attention, "" if model is None else type(model).__name__)
        if reason is not None:
            raise CacheError(reason)
    if attention == NATIVE:
        yield
        return
    logging.getLogger("diffusers.models.modeling_utils").setLevel(logging.ERROR)  # it warns of every use
    try:
        for model in models:
            model.set_attention_backend(attention)
        yield
    except RuntimeError as error:
        if "backend" in str(error).lower():
            raise CacheError(f"attention: {attention}: {error}") from error
        raise
    finally:
        for model in models:
            model.reset_attention_backend()
