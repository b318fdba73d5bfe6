"""Encode each prompt once, however often a pipeline is called with it: sweeps over solvers repeat the same prompts."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor

Key = Hashable
PLAIN = (type(None), bool, int, float, str, torch.dtype, torch.device)
"""Types of arguments that say all about an encoding; calls with others (pictures, tensors) are passed through."""


@contextmanager
def encode_once(pipe: Any) -> Iterator[None]:
    """Keep what `pipe.encode_prompt` returned, inside a with block: same arguments, same tensors, bit for bit.

    Its text encoder must stay as it is within the block. A pipeline without that method is left alone.
    """
    plain = type(pipe)
    if not callable(getattr(plain, "encode_prompt", None)):
        yield
        return
    kept: dict[Key, Any] = {}

    @wraps(plain.encode_prompt)
    def encode_prompt(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            key = (_key(args), _key(kwargs))
        except TypeError:
            return plain.encode_prompt(self, *args, **kwargs)
        if key not in kept:
            kept[key] = plain.encode_prompt(self, *args, **kwargs)
        return _copy(kept[key])

    pipe.__class__ = type(plain.__name__, (plain,), {"encode_prompt": encode_prompt, "__module__": plain.__module__})
    try:
        yield
    finally:
        pipe.__class__ = plain


def _key(value: Any) -> Key:
    """A key of arguments, types included, since 1 == True; raises TypeError for what has none."""
    if isinstance(value, Mapping):
        return tuple((name, _key(value[name])) for name in sorted(value))
    if isinstance(value, list | tuple):
        return type(value), tuple(_key(part) for part in value)
    if not isinstance(value, PLAIN):
        raise TypeError(f"{type(value).__name__} is no key")
    return type(value), value


def _copy(value: Any) -> Any:
    """Fresh tensors, so that a pipeline may change them in place."""
    if isinstance(value, Tensor):
        return value.clone()
    if type(value) in (list, tuple):
        return type(value)(_copy(part) for part in value)
    return value
