"""Text encoders of a pipeline: a cache of what they made of each prompt, and prompts that they were given cut off.

Pipelines cut what is longer than a text encoder's window, and log at most a warning. What is compared here is what a
tokenizer gave a pipeline with what it gives when it is not told to cut: with any tokenizer, template and window.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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


# Of what was lost, in a message: a line of the terminal with the rest of it.
SHOWN_LETTERS = 60

SLICING = ("QwenImage",)
"""Prefixes of the classes of pipelines that also cut encodings, to `max_sequence_length` tokens after their template."""


@dataclass(frozen=True)
class Seen:
    """A text as one tokenizer saw it.

    Attributes:
        component: the pipeline's name for the tokenizer.
        text: what it was given.
        tokens: how many there are, with the tokenizer's own marks.
        window: how many it was let give; None where it was not told to cut.
        lost: the part of the text that was cut; "" for none.
        lost_at: where that begins.
    """

    component: str
    text: str
    tokens: int
    window: int | None
    lost: str = ""
    lost_at: int = 0


@dataclass(frozen=True)
class Cut:
    """A prompt that was cut.

    Attributes:
        is_negative: whether it is the negative prompt.
        component: the pipeline's name for the tokenizer.
        tokens: how many the prompt has, with marks and template.
        window: how many of them the text encoder saw.
        lost: the beginning of what it did not see.
        seen_whole: other text encoders that saw all.
    """

    is_negative: bool
    component: str
    tokens: int
    window: int
    lost: str
    seen_whole: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Describe the truncation in one sentence."""
        what = "the negative prompt" if self.is_negative else "the prompt"
        whole = f"; {', '.join(self.seen_whole)} saw all of it" if self.seen_whole else ""
        return f"{what}: {self.component} saw {self.window} of its {self.tokens} tokens, without {self.lost!r}{whole}"


@contextmanager
def watching(pipe: Any, arguments: Mapping[str, Any] | None = None) -> Iterator[list[Seen]]:
    """Watch the tokenizers of a pipeline, inside a with block; the texts that they get are added to the list.

    Args:
        pipe: a diffusers pipeline.
        arguments: of the call that is watched.
    """
    seen: list[Seen] = []
    most = _most_tokens(pipe, arguments or {})
    with ExitStack() as stack:
        for name, component in getattr(pipe, "components", {}).items():
            tokenizer = _tokenizer(component)
            if tokenizer is not None:
                stack.enter_context(_watched(_encoder_of(name, pipe), tokenizer, most, seen))
        yield seen


def cuts(seen: Sequence[Seen], prompt: str, negative_prompt: str | None) -> tuple[Cut, ...]:
    """List the truncations of a prompt and its negative prompt, one for each text encoder."""
    found: dict[tuple[bool, str], Cut] = {}
    for each in seen:
        is_negative = _is_negative(each.text, prompt, negative_prompt)
        lost = _lost_of(each, negative_prompt if is_negative else prompt)
        if not lost:
            continue
        others = {other.component for other in seen if other.component != each.component}
        cut = {other.component for other in seen if other.lost}
        lost = lost if len(lost) <= SHOWN_LETTERS else f"{lost[:SHOWN_LETTERS]}…"
        whole = tuple(sorted(others - cut))
        found.setdefault(
            (is_negative, each.component),
            Cut(is_negative, each.component, each.tokens, each.window or 0, lost, whole),
        )
    return tuple(found.values())


def as_json(found: Sequence[Cut]) -> list[dict[str, Any]]:
    """Return truncations as plain data."""
    return [{**vars(each), "seen_whole": list(each.seen_whole)} for each in found]


def from_json(rows: Any) -> tuple[Cut, ...]:
    """Read what `as_json` returned.

    Raises:
        TypeError, KeyError: it is none.
    """
    return tuple(Cut(**{**row, "seen_whole": tuple(row["seen_whole"])}) for row in rows)


def _is_negative(text: str, prompt: str, negative_prompt: str | None) -> bool:
    """Return whether a text that a tokenizer was given holds the negative prompt: cleaned, or in a template."""
    ours, theirs = _bare(prompt), _bare(negative_prompt or "")
    given = _bare(text)
    if ours == theirs or not theirs:
        return False
    if ours in given and theirs in given:
        return len(theirs) > len(ours)
    return theirs in given


def _lost_of(seen: Seen, prompt: str | None) -> str:
    """Return the lost part of a prompt, without a template's own text; "" for none."""
    start = seen.text.find(prompt) if prompt else -1
    if start < 0 or not seen.lost:
        return seen.lost
    end = start + len(prompt or "")
    return seen.text[max(seen.lost_at, start) : min(seen.lost_at + len(seen.lost), end)].strip()


def _bare(text: str) -> str:
    return "".join(text.split()).lower()


def _tokenizer(component: Any) -> Any | None:
    """Return a component that is a tokenizer, or the one inside a processor of texts and pictures."""
    from transformers import PreTrainedTokenizerBase

    found = component if isinstance(component, PreTrainedTokenizerBase) else getattr(component, "tokenizer", None)
    return found if isinstance(found, PreTrainedTokenizerBase) else None


def _encoder_of(name: str, pipe: Any) -> str:
    """Return the name of a tokenizer's text encoder, by diffusers' convention."""
    suffix = name.removeprefix("tokenizer")
    encoder = f"text_encoder{suffix}"
    return encoder if name.startswith("tokenizer") and hasattr(pipe, encoder) else name


def _most_tokens(pipe: Any, arguments: Mapping[str, Any]) -> int | None:
    """Return the number of tokens whose encoding a pipeline keeps; None where it keeps all."""
    template = getattr(pipe, "prompt_template_encode_start_idx", None)
    if not type(pipe).__name__.startswith(SLICING) or not isinstance(template, int):
        return None
    default = inspect.signature(pipe.__call__).parameters["max_sequence_length"].default
    return template + int(arguments.get("max_sequence_length") or default)


@contextmanager
def _watched(name: str, tokenizer: Any, most: int | None, seen: list[Seen]) -> Iterator[None]:
    plain: Any = type(tokenizer)

    def call(self: Any, text: Any = None, *args: Any, **kwargs: Any) -> Any:
        given = plain.__call__(self, text, *args, **kwargs)
        seen.extend(_look(plain, self, name, text, kwargs, most))
        return given

    def encode(self: Any, text: Any, *args: Any, **kwargs: Any) -> Any:
        given = plain.encode(self, text, *args, **kwargs)
        seen.extend(_look(plain, self, name, text, kwargs, most))
        return given

    members = {"__call__": call, "encode": encode, "__module__": plain.__module__, "__qualname__": plain.__qualname__}
    tokenizer.__class__ = type(plain.__name__, (plain,), members)
    try:
        yield
    finally:
        tokenizer.__class__ = plain


def _look(
    plain: Any, tokenizer: Any, name: str, text: Any, asked: Mapping[str, Any], most: int | None
) -> Iterator[Seen]:
    """Tokenize once more without cutting, and compare."""
    texts = [text] if isinstance(text, str) else text if isinstance(text, list | tuple) else ()
    cutting = asked.get("truncation")
    window = None
    if cutting not in (None, False, "do_not_truncate"):
        window = min(asked.get("max_length") or tokenizer.model_max_length, most or sys.maxsize)
    marks = asked.get("add_special_tokens", True)
    for each in texts:
        if not isinstance(each, str):
            continue
        whole = plain.__call__(
            tokenizer,
            each,
            add_special_tokens=marks,
            padding=False,
            truncation=False,
            return_special_tokens_mask=True,
            return_offsets_mapping=tokenizer.is_fast,
            verbose=False,
        )
        ids = whole["input_ids"]
        if window is None or len(ids) <= window:
            yield Seen(name, each, len(ids), window)
            continue
        own = [place for place, is_mark in enumerate(whole["special_tokens_mask"]) if not is_mark]
        kept = max(window - (len(ids) - len(own)), 0)
        yield Seen(name, each, len(ids), int(window), *_lost(tokenizer, each, whole, own, kept))


def _lost(tokenizer: Any, text: str, whole: Mapping[str, Any], own: Sequence[int], kept: int) -> tuple[str, int]:
    """Return the part of a text behind the tokens that were kept (or before them), and where it begins."""
    is_left = tokenizer.truncation_side == "left"
    gone = own[: len(own) - kept] if is_left else own[kept:]
    if "offset_mapping" in whole:
        begin, end = whole["offset_mapping"][gone[0]][0], whole["offset_mapping"][gone[-1]][1]
        return text[begin:end].strip() or text[begin:].strip() or "…", begin
    lost = str(tokenizer.decode([whole["input_ids"][place] for place in gone])).strip()
    at = text.find(lost)
    return lost or "…", at if at >= 0 else 0
