"""A cache of encoded prompts: sweeps over solvers call a pipeline with the same prompts again and again."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor

Encodings = dict[str, Any]
"""Results of `encode_prompt` by the text of its arguments: nested tuples and lists of tensors and None; and `SIDES`."""

SIDES = "padding_side"
"""Key of the sides on which tokenizers pad once they have encoded, where that is not what they were saved with."""

PLAIN = (type(None), bool, int, float, str, torch.dtype)
"""Types of arguments that say all about an encoding; calls with others (pictures, tensors) are passed through."""

WITHOUT = ("self", "device")
"""Arguments that say nothing about it: the tensors come back on the device that is asked for."""


class NotEncodedError(LookupError):
    """A prompt of which the encodings at hand say nothing, of a pipeline whose text encoders are not loaded."""


def encodes(pipeline: type) -> bool:
    """Return whether a pipeline class has an `encode_prompt` of its own, which alone reads its text encoders."""
    return callable(getattr(pipeline, "encode_prompt", None))


@contextmanager
def encode_once(pipe: Any, kept: Encodings | None = None, *, is_complete: bool = False) -> Iterator[None]:
    """Keep what `pipe.encode_prompt` returned, inside a with block: same arguments, same tensors, bit for bit.

    Its text encoder must stay as it is within the block. A pipeline without that method is left alone.

    Args:
        pipe: a diffusers pipeline.
        kept: what is known already, and where what is new goes.
        is_complete: whether all that will be asked for is known, so that text encoders need not be there.

    Raises:
        NotEncodedError: within the block, for a prompt that is not in complete encodings.
    """
    plain = type(pipe)
    if not encodes(plain):
        yield
        return
    known: Encodings = {} if kept is None else kept
    signature = inspect.signature(plain.encode_prompt)

    @wraps(plain.encode_prompt)
    def encode_prompt(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = signature.bind(self, *args, **kwargs)
        given.apply_defaults()
        try:
            key = _text({name: value for name, value in given.arguments.items() if name not in WITHOUT})
        except TypeError:
            if is_complete:
                raise
            return plain.encode_prompt(self, *args, **kwargs)
        if key not in known:
            if is_complete:
                prompt = str(given.arguments.get("prompt"))[:200]
                raise NotEncodedError(f"{plain.__name__} asks for an encoding that was not made, of {prompt!r}")
            known[key] = plain.encode_prompt(self, *args, **kwargs)
            if sides := _sides(self):
                known[SIDES] = sides
        # LTX-2 sets the side as it encodes, and reads it again later in the call.
        for name, side in known.get(SIDES, ()):
            setattr(getattr(self, name), SIDES, side)
        return _copy(known[key], given.arguments.get("device") or self._execution_device)

    members = {"encode_prompt": encode_prompt, "encoded_dtype": _dtype_of(known), "__module__": plain.__module__}
    pipe.__class__ = type(plain.__name__, (plain,), members)
    try:
        yield
    finally:
        pipe.__class__ = plain


def _sides(pipe: Any) -> tuple[tuple[str, str], ...]:
    """List the tokenizers that pad on another side than they were saved with, and that side."""
    found = []
    for name, each in pipe.components.items():
        side, saved = getattr(each, SIDES, None), getattr(each, "init_kwargs", {})
        if side is not None and side != saved.get(SIDES, getattr(type(each), SIDES, side)):
            found.append((name, side))
    return tuple(found)


def _text(value: Any) -> str:
    """Spell all that an argument says, types included, since 1 == True; raises TypeError for what says more."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_text(value[name])}" for name in sorted(value)) + "}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({', '.join(map(_text, value))})"
    if not isinstance(value, PLAIN):
        raise TypeError(f"{type(value).__name__} is no key")
    return repr(value)


def _copy(value: Any, device: Any) -> Any:
    """Return fresh tensors, so that a pipeline may change them in place."""
    if isinstance(value, Tensor):
        return value.to(device, copy=True)
    if type(value) in (list, tuple):
        return type(value)(_copy(part, device) for part in value)
    return value


def _dtype_of(value: Any) -> torch.dtype | None:
    """Return the dtype of the first tensor of floats: a text encoder's own."""
    if isinstance(value, Tensor):
        return value.dtype if value.is_floating_point() else None
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return next((dtype for part in parts if (dtype := _dtype_of(part)) is not None), None)
