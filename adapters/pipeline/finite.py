"""Checks for NaN and infinity: in decoders' outputs, in encoded prompts, and in weights, where no header shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from genrun.adapters.pipeline.pictures import NON_FINITE, PictureError, check_finite, non_finite

REMEDY = "The file is damaged, or was converted to a dtype that is too small for it: get it again, then genrun retry."


def damaged_weights(pipe: Any, what: str) -> PictureError | None:
    """Name the first tensor of a pipeline's models that holds NaN or infinity; None where all are finite.

    Args:
        pipe: a diffusers pipeline.
        what: has been seen, for the message.
    """
    for name, model in getattr(pipe, "components", {}).items():
        for tensor, value in _floats(model) if isinstance(model, nn.Module) else ():
            bad = int((~torch.isfinite(value)).sum())
            if bad:
                where = f"in the weights of the pipeline's {name}, {bad:,} of {value.numel():,} values of {tensor!r}"
                return PictureError(NON_FINITE, f"{what}: {where} are NaN or infinite", REMEDY)
    return None


def check_encodings(pipe: Any, made: Any) -> None:
    """Check that what the text encoders made of a prompt holds no NaN. Raises PictureError naming the cause.

    Infinity is let through: masks of attention may hold it.
    """
    if not any(bool(torch.isnan(tensor).any()) for tensor in _tensors(made)):
        return
    what = "NaN in the encoded prompt"
    remedy = "Set model.dtype: {text_encoder: float32} in the job, or bfloat16, for the text encoder that overflows."
    raise damaged_weights(pipe, what) or PictureError(NON_FINITE, f"{what}: a text encoder overflows", remedy)


def _floats(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Iterate over the weights that are here: those of a model that is offloaded may be elsewhere."""
    for name, value in model.named_parameters():
        if not value.is_meta and value.dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            yield name, value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield from [value] if value.is_floating_point() else []
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


@contextmanager
def finite_decoding(pipe: Any) -> Iterator[None]:
    """Check every decoder's output, inside a with block.

    There NaN and infinity can still be seen: what comes after them clamps, casts, or hands them to a safety checker.

    Raises:
        PictureError: within the block.
    """
    with ExitStack() as stack:
        for name, model in getattr(pipe, "components", {}).items():
            # Sound is not kept, and a clip without it is whole.
            if isinstance(model, nn.Module) and callable(getattr(model, "decode", None)) and "audio" not in name:
                stack.enter_context(_checked(name, model))
        yield


@contextmanager
def _checked(name: str, model: Any) -> Iterator[None]:
    """Check a decoder where it returns, and at its last layers: some clamp what those give."""
    plain = model.decode
    remedy = _remedy(name, model)
    inner: list[tuple[str, Tensor]] = []

    def look(part: nn.Module, args: Any, output: Any) -> None:
        del part, args
        value = _first_tensor(output)
        if value is not None and value.is_floating_point() and not bool(torch.isfinite(value).all()):
            inner.append((f"what the decoder of the pipeline's {name} ({type(model).__name__}) gave", value))

    @wraps(plain)
    def decode(*args: Any, **kwargs: Any) -> Any:
        inner.clear()
        output = plain(*args, **kwargs)
        value = _first_tensor(output)
        if value is not None:
            check_finite(value, f"the output of the pipeline's {name} ({type(model).__name__})", remedy)
        for what, found in inner[:1]:
            raise non_finite(found, what, remedy)
        return output

    decoder = getattr(model, "decoder", None)
    hook = decoder.register_forward_hook(look) if isinstance(decoder, nn.Module) else None
    had = vars(model).get("decode")
    model.decode = decode
    try:
        yield
    finally:
        if had is None:
            del model.decode
        else:
            model.decode = had
        if hook is not None:
            hook.remove()


def _remedy(name: str, model: Any) -> str:
    if getattr(model, "dtype", None) == torch.float32:
        return f"The {name} is in float32 already, so its weights may be damaged: get them again, then genrun decode."
    return f"Set model.dtype: {{{name}: float32}} in the job and submit it again: its items are then others."


def _first_tensor(output: Any) -> Tensor | None:
    found = getattr(output, "sample", output)
    found = found[0] if isinstance(found, tuple | list) and found else found
    return found if isinstance(found, Tensor) else None
