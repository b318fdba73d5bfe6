"""A second pipeline over the same models: decodes in another thread while the first one samples the next item."""

from __future__ import annotations

import copy
from typing import Any


def detached(pipe: Any) -> Any | None:
    """A pipeline that shares the models of `pipe`, and nothing that a call changes: neither scheduler nor class.

    Decoding calls a pipeline with no steps left, so that the VAE is the only model of it that computes, and sampling never
    uses the VAE. Diffusers' clearing up at the end of a call is left out: it would empty caches of the denoiser in use.

    Returns:
        The pipeline, or None where decoding evaluates the denoiser: pipelines that take no latents.
    """
    plain = type(pipe)
    if not callable(getattr(plain, "prepare_latents", None)):
        return None
    other = copy.copy(pipe)
    object.__setattr__(other, "scheduler", copy.deepcopy(pipe.scheduler))
    members = {"maybe_free_model_hooks": _nothing, "__module__": plain.__module__}
    other.__class__ = type(plain.__name__, (plain,), members)
    return other


def _nothing(_: Any) -> None:
    """Clear nothing up."""
