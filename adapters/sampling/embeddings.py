"""Encodings of prompts made ahead of sampling, and their files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genrun.adapters.adapter import Adapter
from genrun.adapters.pipeline.encoders import Cut, Encodings, as_json, encode_once, from_json
from genrun.adapters.pipeline.pictures import check_encodings
from genrun.adapters.sampling.call import FinishedScheduler, SamplingRequest, call_arguments
from genrun.adapters.sampling.parallelize import put_scheduler
from genrun.adapters.tensor_files import read_header, with_checksum

FORMAT = "genrun encodings 1"
TUPLE, LIST, TEXT = "tuple", "list", "text"


class _EncodedError(BaseException):
    """Leaves a pipeline's call before its loop. No pipeline catches a BaseException."""


class _StopScheduler(FinishedScheduler):
    """A scheduler at which a pipeline's call ends: it asks for the grid once all its prompts are encoded."""

    @property
    def set_timesteps(self) -> Callable[..., None]:
        """End the call, whatever the real scheduler takes; pipelines look at its signature before they ask."""

        @wraps(self._real.set_timesteps)
        def stop(*_: Any, **__: Any) -> None:
            raise _EncodedError

        return stop


def encode(pipe: Any, adapter: Adapter, request: SamplingRequest) -> Encodings:
    """Return what `pipe.encode_prompt` gives in all calls that a request's sampling makes of it.

    The pipeline's other models are not run, and may be without weights (on the meta device). Empty where the pipeline
    encodes nothing in that way.

    Raises:
        PictureError: NaN, named by the text encoder that it comes from.
    """
    made: Encodings = {}
    with ExitStack() as stack:
        stack.enter_context(encode_once(pipe, made))
        stack.enter_context(put_scheduler(pipe, _StopScheduler(pipe.scheduler, torch.empty(0), loops=False)))
        stack.enter_context(torch.no_grad())
        try:
            pipe(**call_arguments(pipe, adapter, request))
        except _EncodedError:
            check_encodings(pipe, made)
            return made
    raise RuntimeError(f"{type(pipe).__name__} ended without asking its scheduler for timesteps")


def pack(encodings: Encodings, cut: Sequence[Cut] = ()) -> bytes:
    """Write encodings as a safetensors file: tensors by number, structure and truncations as JSON in its metadata."""
    from safetensors.torch import save

    tensors: list[Tensor] = []
    structure = {key: _outline(value, tensors) for key, value in encodings.items()}
    named = {str(number): tensor.detach().cpu().contiguous() for number, tensor in enumerate(tensors)}
    metadata = {"format": FORMAT, "structure": json.dumps(structure)}
    if cut:
        metadata["cut"] = json.dumps(as_json(cut))
    return save(named, with_checksum(metadata, save(named, metadata)))


def unpack(data: bytes) -> Encodings:
    """Read what `pack` wrote, on the CPU.

    Raises:
        ValueError: it is no such file, or a damaged one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
        metadata = read_header(io.BytesIO(data)).metadata
        if metadata["format"] != FORMAT:
            raise ValueError(f"its format is {metadata['format']!r}, wanted {FORMAT!r}")
        return {key: _filled(part, tensors) for key, part in json.loads(metadata["structure"]).items()}
    except (SafetensorError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"no encodings: {error}") from error


def cut_in(path: Path) -> tuple[Cut, ...]:
    """Read the truncations of the prompts whose encodings lie in a file; its header alone is read.

    Raises:
        ValueError: it is no such file, or a damaged one.
        OSError: it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return from_json(json.loads((file.metadata() or {}).get("cut") or "[]"))
    except (SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no encodings: {error}") from error


def _outline(value: Any, tensors: list[Tensor]) -> Any:
    """Spell nested lists as JSON: tensors are numbers, None is null, a text an object, a sequence [its type, part ...]."""
    if isinstance(value, Tensor):
        # A copy: two numbers may stand for one tensor, which safetensors refuses.
        tensors.append(value.clone())
        return len(tensors) - 1
    if type(value) in (tuple, list):
        return [TUPLE if isinstance(value, tuple) else LIST, *(_outline(part, tensors) for part in value)]
    if value is None:
        return None
    if isinstance(value, str):
        return {TEXT: value}
    raise TypeError(f"encode_prompt returned a {type(value).__name__}, which cannot be kept")


def _filled(part: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(part, list):
        parts = (_filled(inner, tensors) for inner in part[1:])
        return tuple(parts) if part[0] == TUPLE else list(parts)
    if isinstance(part, dict):
        return str(part[TEXT])
    return None if part is None else tensors[str(part)]
