"""Decode final latents with a pipeline's own code, its loop left out; also in another thread than the sampling."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from genrun.adapters.adapter import Adapter
from genrun.adapters.checkpoint.pipeline_loops import loops_of_type
from genrun.adapters.pipeline.finite import finite_decoding
from genrun.adapters.pipeline.pictures import (
    NOT_AS_ASKED,
    PictureError,
    Pictures,
    check_asked,
    check_finite,
    pictures_of,
)
from genrun.adapters.sampling.call import SamplingRequest, call_arguments
from genrun.adapters.sampling.parallelize import put_scheduler
from genrun.adapters.shapes import OneLatents


def decode(pipe: Any, adapter: Adapter, request: SamplingRequest, latents: OneLatents) -> Pictures:
    """Decode final latents by the pipeline's own decoding, its loop left out.

    Raises:
        PictureError: values that are not finite, or other pictures than were asked for.
    """
    kind = type(pipe).__name__
    loops_in_call = loops_of_type(type(pipe))
    if loops_in_call is not None and loops_in_call.several:
        message = f"{kind} samples in several loops, whose last latents alone are no picture"
        raise PictureError(NOT_AS_ASKED, message, "Sample it again: genrun retry.")
    check_finite(latents, "the final latents")
    denoised = decodes_denoised(pipe)
    loops = denoised or not callable(getattr(pipe, "prepare_latents", None))
    arguments = call_arguments(pipe, adapter, request)
    if loops and not denoised:
        latents = latents.float()  # these pipelines hand pixels to numpy, which has no bfloat16
    scheduler = FinishedScheduler(pipe.scheduler, latents, loops=loops, whole=denoised)
    with put_scheduler(pipe, scheduler), _starting_at(pipe, latents), finite_decoding(pipe), torch.no_grad():
        pictures = pictures_of(pipe(**{**arguments, "output_type": "np"}))
    check_asked(pictures, adapter.resolve(request.sampling))
    return pictures


@contextmanager
def _starting_at(pipe: Any, latents: Tensor) -> Iterator[None]:
    """Start the pipeline from these latents, in the form of its loop: some take only another one."""
    plain = type(pipe)
    if not callable(getattr(plain, "prepare_latents", None)):
        yield
        return

    def prepare_latents(self: Any, *args: Any, **kwargs: Any) -> Any:
        fresh = plain.prepare_latents(self, *args, **kwargs)
        first, *rest = fresh if isinstance(fresh, tuple) else (fresh,)
        if first.shape != latents.shape:
            raise ValueError(f"latents of shape {tuple(latents.shape)}, wanted {tuple(first.shape)}")
        given = latents.to(first.device)
        if getattr(pipe.vae, "dtype", None) == torch.float32:
            given = given.float()  # exact; pipelines of one dtype throughout leave them as they are
        return (given, *rest) if isinstance(fresh, tuple) else given

    members = {"prepare_latents": prepare_latents, "__module__": plain.__module__}
    pipe.__class__ = type(plain.__name__, (plain,), members)
    try:
        yield
    finally:
        pipe.__class__ = plain


def decodes_denoised(pipe: Any) -> bool:
    """Return whether a pipeline decodes not the latents of its last step, but the prediction made in it (LCM)."""
    try:
        source = inspect.getsource(type(pipe).__call__)
    except (OSError, TypeError):
        return False
    return re.search(r"^\s*latents, denoised = self\.scheduler\.step\(", source, re.MULTILINE) is not None


class FinishedScheduler:
    """A scheduler with nothing left to do: the loop runs not at all, and the pipeline decodes the latents it was given.

    Args:
        real: the pipeline's scheduler.
        latents: final latents, (1, ...).
        loops: for pipelines that take no latents: run the loop once, and answer with them.
        whole: for pipelines that unpack all that a step returns, and decode the second part.
    """

    order = 1
    init_noise_sigma = 1.0

    def __init__(self, real: Any, latents: Tensor, *, loops: bool, whole: bool = False) -> None:
        self._real, self._latents, self.loops, self._whole = real, latents, loops, whole

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The real scheduler's class."""
        return type(self._real)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    @property
    def timesteps(self) -> Tensor:
        """None, or the last one."""
        return self._real.timesteps[-1:] if self.loops else self._real.timesteps[:0]

    @property
    def step(self) -> Callable[..., Any]:
        """The final latents, for everything that the real step returns; with its signature."""

        @wraps(self._real.step)
        def step(model_output: Tensor, *_: Any, return_dict: bool = True, **__: Any) -> Any:
            latents = self._latents.to(model_output.device)
            if return_dict:
                return SimpleNamespace(prev_sample=latents, pred_original_sample=latents)
            return (latents, latents) if self._whole else (latents,)

        return step


def decoding_copy(pipe: Any) -> Any | None:
    """Return a pipeline that shares the models of `pipe`, and nothing that a call changes: neither scheduler nor class.

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
