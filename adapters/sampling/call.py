"""The call of a pipeline that a request stands for: its arguments, and what the pipeline would not heed, refused before."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from genrun.adapters.adapter import NUMBER_FIELDS, Adapter
from genrun.adapters.pipeline.call_options import OptionsError, unknown
from genrun.adapters.pipeline.families import informed, parts_of
from genrun.adapters.pipeline.input_arguments import arguments_of, call_inputs, not_taken
from genrun.adapters.pipeline.pictures import NOT_AS_ASKED, PictureError

if TYPE_CHECKING:
    from genrun.adapters.pipeline.input_arguments import Files

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
    options = sampling.get("options") or {}
    _refuse_unknown(options, pipe, accepted)
    generator = torch.Generator(pipe._execution_device).manual_seed(request.seed)
    inputs = call_inputs(type(pipe).__name__, accepted, request.inputs)
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
