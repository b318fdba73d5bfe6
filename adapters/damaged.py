"""Find the weights that are not finite, for an item whose numbers were not: headers of files do not show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from genrun.adapters.pictures import NON_FINITE, PictureError

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
    """The weights that are here: of a model that is offloaded in part, the rest has no numbers to look at."""
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
