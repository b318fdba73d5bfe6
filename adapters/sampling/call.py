"""The call of a pipeline that a request stands for: its arguments, and what the pipeline would not heed, refused before.

Final latents are decoded with the pipeline's own code, its loop left out; also in another thread than the sampling.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, wraps
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genrun.adapters.adapter import NUMBER_FIELDS, Adapter
from genrun.adapters.checkpoint.call_types import as_declared
from genrun.adapters.checkpoint.diffusers_source import loops_of_type
from genrun.adapters.pipeline.call_options import OptionsError, arguments_of, call_inputs, not_taken, unknown
from genrun.adapters.pipeline.families import frames_cut, informed, parts_of
from genrun.adapters.pipeline.pictures import (
    NOT_AS_ASKED,
    PictureError,
    Pictures,
    check_asked,
    check_finite,
    finite_decoding,
    pictures_of,
    sound_of,
)
from genrun.adapters.sampling.parallelize import put_scheduler
from genrun.adapters.scheduler.timesteps import FinishedTable, LastTable, with_counting
from genrun.adapters.shapes import OneLatents

if TYPE_CHECKING:
    from genrun.adapters.pipeline.call_options import Files


ALIASES = {"num_frames": ("video_length", "frames")}
"""Field of sampling -> the names that some pipelines have for it."""


@dataclass(frozen=True)
class SamplingRequest:
    """The part of an item that decides its pixels, besides the model and the solver.

    Attributes:
        prompt: the caption.
        seed: of the generator that the pipeline draws its start and its noise from.
        sampling: the resolved sampling section: steps, guidance_scale, height, width, num_frames, scheduler, options.
        negative_prompt: what to steer away from, or None.
        inputs: field of a prompt -> its pictures or clips, each by its frames in RGB.
    """

    prompt: str
    seed: int
    sampling: Mapping[str, Any]
    negative_prompt: str | None = None
    inputs: Mapping[str, Files] = field(default_factory=dict)


def check_request(pipe: Any, adapter: Adapter, request: SamplingRequest) -> None:
    """Check, before anything is sampled, that a pipeline can make what is asked for, and heeds all that is given.

    Raises:
        PictureError: it would round a number, ignore an argument, or make several pictures.
    """
    accepted = inspect.signature(pipe.__call__).parameters
    known = informed(adapter, parts_of(pipe))
    sampling = adapter.resolve(request.sampling)
    given = {**sampling, "negative_prompt": request.negative_prompt}
    for name, message in known.validate(given):
        raise PictureError(NOT_AS_ASKED, f"sampling.{name}: {message}", "Change it in the job, and submit it again.")
    kind = type(pipe).__name__
    for name in (*NUMBER_FIELDS, "negative_prompt"):
        is_default = name in adapter.defaults and given.get(name) == adapter.defaults[name]
        if given.get(name) is not None and not is_default and not _argument(name, accepted):
            raise PictureError(
                NOT_AS_ASKED, f"sampling.{name}: {kind} has no such argument", "Leave it out, and submit the job again."
            )
    _check_inputs(pipe, request, accepted)
    for name, value in (sampling.get("options") or {}).items():
        if name.startswith("num_") and name.endswith("_per_prompt") and value not in (None, 1):
            raise PictureError(
                NOT_AS_ASKED,
                f"sampling.options.{name}: {value}: an item is one picture or clip",
                "Leave it out, and use seeds: [0, 1, ...] for more samples of each prompt.",
            )


def _check_inputs(pipe: Any, request: SamplingRequest, accepted: Mapping[str, Any]) -> None:
    """Refuse inputs that a loaded pipeline does not take, or has no adapter for. Raises PictureError."""
    kind = type(pipe).__name__
    for name in request.inputs:
        if name not in arguments_of(kind, accepted):
            remedy = "Leave it out, and submit the job again."
            raise PictureError(NOT_AS_ASKED, not_taken(name, kind, accepted), remedy)
    denoiser = getattr(pipe, "transformer", None) or getattr(pipe, "unet", None)
    if "ip_adapter_image" in request.inputs and getattr(denoiser, "encoder_hid_proj", None) is None:
        remedy = "Name one in the job, or leave the picture out; then submit it again."
        raise PictureError(NOT_AS_ASKED, f"ip_adapter_image: this {kind} has no IP-Adapter", remedy)


def kind_made(pipe: Any, adapter: Adapter) -> str | None:
    """Say what a pipeline makes, "video" or "image"; None where nothing tells."""
    known = informed(adapter, parts_of(pipe)).kind
    accepted = inspect.signature(pipe.__call__).parameters
    return known or ("video" if _argument("num_frames", accepted) else None)


def _argument(name: str, accepted: Mapping[str, Any]) -> str | None:
    """Return the name of a field of sampling in a pipeline's call, or None where it has none of that meaning."""
    return next((each for each in (name, *ALIASES.get(name, ())) if each in accepted), None)


def call_arguments(pipe: Any, adapter: Adapter, request: SamplingRequest) -> dict[str, Any]:
    """Build the pipeline call of a request; fields that this pipeline does not take are left out.

    `check_request` refuses those that were asked for.
    """
    accepted = inspect.signature(pipe.__call__).parameters
    sampling = adapter.resolve(request.sampling)
    arguments: dict[str, Any] = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "num_inference_steps": sampling.get("steps"),
        **{_argument(name, accepted) or name: sampling.get(name) for name in NUMBER_FIELDS},
        **adapter.call,
    }
    arguments = {k: v for k, v in arguments.items() if v is not None and k in accepted}
    if "max_area" in accepted and {"height", "width"} <= arguments.keys():
        # Flux Kontext makes pictures of that many pixels, and takes height and width for their shape alone.
        arguments["max_area"] = arguments["height"] * arguments["width"]
    given, kind = sampling.get("options") or {}, type(pipe).__name__
    _refuse_unknown(given, pipe, accepted)
    options = {name: as_declared(kind, name, value) for name, value in given.items()}
    generator = torch.Generator(pipe._execution_device).manual_seed(request.seed)
    inputs = call_inputs(kind, accepted, request.inputs)
    return {**arguments, **options, **inputs, "generator": generator}


def _refuse_unknown(options: Mapping[str, Any], pipe: Any, accepted: Mapping[str, inspect.Parameter]) -> None:
    """Refuse options that a pipeline does not take, where it could not be told before it was loaded.

    Raises:
        OptionsError: the first of them.
    """
    for name in options:
        if name not in accepted:
            message = unknown(name, type(pipe).__name__, [*accepted])
            raise OptionsError(f"sampling.options.{name}: {message}", "Leave it out of the job, and submit that.")


def batch_arguments(pipe: Any, adapter: Adapter, requests: Sequence[SamplingRequest]) -> dict[str, Any]:
    """Build one pipeline call for several requests: lists of prompts and generators. Raises ValueError."""
    first, *rest = requests
    arguments = call_arguments(pipe, adapter, first)
    if not rest:
        return arguments
    if any(request.sampling != first.sampling for request in rest):
        raise ValueError("a batch shares one sampling section")
    if any(request.inputs for request in requests):
        raise ValueError("pictures and clips go with one prompt each: use batches of 1")
    device = arguments["generator"].device
    arguments["generator"] = [torch.Generator(device).manual_seed(request.seed) for request in requests]
    if "prompt" in arguments:
        arguments["prompt"] = [request.prompt for request in requests]
        if any(request.negative_prompt is not None for request in requests):
            arguments["negative_prompt"] = [request.negative_prompt or "" for request in requests]
    elif "batch_size" in inspect.signature(pipe.__call__).parameters:
        arguments["batch_size"] = len(requests)
    else:
        raise ValueError(f"{type(pipe).__name__} takes neither a prompt nor a batch_size: use batches of 1")
    return arguments


BESIDE = ("prepare_audio_latents",)
"""Methods that prepare what a pipeline samples beside its pictures, in the order of its schedulers' steps."""


def decode(
    pipe: Any, adapter: Adapter, request: SamplingRequest, latents: OneLatents, others: Sequence[Tensor] = ()
) -> Pictures:
    """Decode final latents by the pipeline's own decoding, its loop left out.

    Args:
        pipe: the pipeline.
        adapter: of the model.
        request: what was sampled.
        latents: of the pictures.
        others: of what was sampled beside them: the sound's.

    Raises:
        PictureError: values that are not finite, or other pictures than were asked for.
    """
    kind = type(pipe).__name__
    loops_in_call = loops_of_type(type(pipe))
    if loops_in_call is not None and loops_in_call.several:
        message = f"{kind} samples in several loops, whose last latents alone are no picture"
        raise PictureError(NOT_AS_ASKED, message, "Sample it again: genrun retry.")
    if len(others) > sum(callable(getattr(pipe, name, None)) for name in BESIDE):
        message = f"{kind} samples something beside its pictures that only a whole call of it decodes"
        raise PictureError(NOT_AS_ASKED, message, "Use genrun.parallelize.")
    check_finite(latents, "the final latents")
    for other in others:
        check_finite(other, "the sound's final latents")
    denoised = decodes_denoised(type(pipe))
    loops = denoised or not callable(getattr(pipe, "prepare_latents", None))
    arguments = call_arguments(pipe, adapter, request)
    if loops and not denoised:
        latents = latents.float()  # these pipelines hand pixels to numpy, which has no bfloat16
    scheduler = FinishedScheduler(
        pipe.scheduler, latents, others, loops=loops, whole=denoised, starts=bool(request.inputs)
    )
    starts = {"prepare_latents": latents, **dict(zip(BESIDE, others, strict=False))}
    with put_scheduler(pipe, scheduler), _starting_at(pipe, starts, scheduler), finite_decoding(pipe), torch.no_grad():
        output = pipe(**{**arguments, "output_type": "np"})
    pictures = replace(pictures_of(output), sound=sound_of(output, pipe) if others else None)
    check_asked(pictures, adapter.resolve(request.sampling), frames_cut(parts_of(pipe)))
    return pictures


@contextmanager
def _starting_at(pipe: Any, starts: Mapping[str, Tensor], scheduler: FinishedScheduler) -> Iterator[None]:
    """Start the pipeline from latents in the form of its loop: some take only another one.

    Args:
        pipe: the pipeline.
        starts: method that prepares latents -> what it is to prepare; methods that the pipeline lacks are left out.
        scheduler: its scheduler meanwhile.
    """
    plain = type(pipe)
    given = {
        name: _preparing(plain, name, start, scheduler)
        for name, start in starts.items()
        if callable(getattr(plain, name, None))
    }
    if given:
        members = {**with_counting(plain), **given, "__module__": plain.__module__}
        pipe.__class__ = type(plain.__name__, (plain,), members)
    try:
        yield
    finally:
        pipe.__class__ = plain


def _preparing(plain: Any, name: str, latents: Tensor, scheduler: FinishedScheduler) -> Callable[..., Any]:
    """Return a method in the place of a pipeline's own that prepares latents, and prepares these."""
    # What the pipeline makes of the latents of its pictures before its loop is undone.
    loops = loops_of_type(plain) if name == "prepare_latents" else None
    if loops is not None and loops.turned:
        latents = latents.permute([loops.turned.index(axis) for axis in range(latents.ndim)])

    def prepare(self: Any, *args: Any, **kwargs: Any) -> Any:
        fresh = getattr(plain, name)(self, *args, **kwargs)
        first, *rest = fresh if isinstance(fresh, tuple) else (fresh,)
        own = latents
        if loops is not None and loops.reshaped and first.numel() == latents.numel():
            own = latents.reshape(first.shape)
        if first.shape != own.shape and scheduler.starts:
            # The loop steps another part of these latents, or another form of them: all but the frames that are given
            # (LTX), or those as well (Kandinsky 6). It has to run once to put them together.
            scheduler.loops = True
            return fresh
        if first.shape != own.shape:
            raise ValueError(f"latents of shape {tuple(own.shape)}, wanted {tuple(first.shape)}")
        given = own.to(first.device)
        decoder = getattr(self, "vae", None) or getattr(self, "movq", None)
        if getattr(decoder, "dtype", None) == torch.float32:
            given = given.float()  # exact; pipelines of one dtype throughout leave them as they are
        return (given, *rest) if isinstance(fresh, tuple) else given

    return prepare


@cache
def decodes_denoised(kind: type) -> bool:
    """Return whether pipelines of a class decode not the latents of their last step, but the prediction made in it (LCM)."""
    try:
        source = inspect.getsource(kind.__call__)
    except (OSError, TypeError):
        return False
    return re.search(r"^\s*latents, denoised = self\.scheduler\.step\(", source, re.MULTILINE) is not None


class FinishedScheduler:
    """A scheduler with nothing left to do: the loop runs not at all, and the pipeline decodes the latents it was given.

    Args:
        real: the pipeline's scheduler.
        latents: final latents, (1, ...).
        others: of what copies of this scheduler step, in the order in which they are made.
        loops: for pipelines that take no latents: run the loop once, and answer with them.
        whole: for pipelines that unpack all that a step returns, and decode the second part.
        starts: for pipelines that start from a picture: they look at the timestep at which it gets its noise.
    """

    order = 1
    init_noise_sigma = 1.0

    def __init__(
        self,
        real: Any,
        latents: Tensor,
        others: Sequence[Tensor] = (),
        *,
        loops: bool,
        whole: bool = False,
        starts: bool = False,
    ) -> None:
        self._real, self._latents, self._others = real, latents, tuple(others)
        self.loops, self._whole, self.starts = loops, whole, starts

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The real scheduler's class."""
        return type(self._real)

    def __getattr__(self, name: str) -> Any:
        if name == "_real":  # asked for by copy, before there is one
            raise AttributeError(name)
        return getattr(self._real, name)

    def __deepcopy__(self, memo: Any) -> FinishedScheduler:
        # A copy steps what is sampled beside the pictures.
        mine, *rest = self._others or (self._latents,)
        flags = {"loops": self.loops, "whole": self._whole, "starts": self.starts}
        return type(self)(copy.deepcopy(self._real, memo), mine, rest, **flags)

    @property
    def timesteps(self) -> Tensor:
        """None, or the last one; or all of them, over which no loop runs."""
        if self.starts:
            table = self._real.timesteps[-1:] if self.loops else self._real.timesteps
            return torch.Tensor._make_subclass(LastTable if self.loops else FinishedTable, table)
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
