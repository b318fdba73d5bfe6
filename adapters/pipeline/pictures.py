"""Pictures as a pipeline returns them: checked for what a cast to bytes would hide, and for what was asked for.

NaN and infinity are looked for in decoders' outputs, in encoded prompts, and in weights, where no header shows them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genrun.adapters.shapes import AnyFrames, Frames
from genrun.adapters.sound import Sound

CHANNELS = (1, 2, 3, 4)
"""Grey, grey with transparency, colour, colour with transparency."""

FLAGS = ("nsfw_content_detected", "nsfw_detected")
"""Fields of a pipeline's output that tell which pictures its safety checker has replaced."""

NON_FINITE, NOT_AS_ASKED = "non_finite", "not_as_asked"


class PictureError(ValueError):
    """Pictures that must not count as made.

    Attributes:
        kind: of the failure, for records.
        remedy: what to do.
    """

    def __init__(self, kind: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.kind, self.remedy = kind, remedy


@dataclass(frozen=True)
class Pictures:
    """The pictures of one item.

    Attributes:
        frames: uint8 (T, H, W, C); T = 1 for an image, C = 1 to 4.
        flagged: whether the checkpoint's safety checker has replaced them by black ones.
        sound: what goes with them, or None.
    """

    frames: Frames
    flagged: bool = False
    sound: Sound | None = None

    @property
    def is_blank(self) -> bool:
        """True when all frames are one and the same colour throughout."""
        return bool((self.frames == self.frames[0, 0, 0]).all())


def pictures_of(output: Any) -> Pictures:
    """Return the only item of a pipeline's output, whose pictures are numpy arrays in [0, 1].

    Raises:
        PictureError: there are several items, values that are not finite, or no pictures at all.
    """
    found = next((getattr(output, name) for name in ("frames", "images") if hasattr(output, name)), None)
    if found is None or not len(found):
        raise PictureError(NOT_AS_ASKED, f"the pipeline returned no pictures but a {type(output).__name__}", "")
    if len(found) != 1:
        raise several(len(found))
    is_clip = hasattr(output, "frames")
    pictures = np.asarray(found[0])
    if pictures.ndim == (3 if is_clip else 2) and (pictures.shape[-1] not in CHANNELS or not is_clip):
        pictures = pictures[..., None]
    if pictures.ndim == 3:
        pictures = pictures[None]
    if pictures.ndim != 4 or pictures.shape[-1] not in CHANNELS or not pictures.size:
        shape = tuple(pictures.shape)
        raise PictureError(NOT_AS_ASKED, f"the pipeline returned an array of shape {shape}, which is no picture", "")
    flags = next((flag for name in FLAGS if (flag := getattr(output, name, None)) is not None), None)
    return Pictures(_bytes(pictures), bool(np.any(flags)) if flags is not None else False)


def sound_of(output: Any, pipe: Any) -> Sound | None:
    """Return the sound of a pipeline's output, at the rate that its vocoder says; None where there is none.

    Raises:
        PictureError: values that are not finite, or no sound of one item.
    """
    found = getattr(output, "audio", None)
    if found is None:
        return None
    waves = torch.as_tensor(found).detach().float().cpu()
    waves = waves[:, None] if waves.ndim == 2 else waves
    configs = (getattr(getattr(pipe, name, None), "config", {}) for name in ("vocoder", "audio_vae"))
    rates = (config.get(key) for config in configs for key in ("output_sampling_rate", "sample_rate"))
    rate = next((rate for rate in rates if isinstance(rate, int) and rate > 0), None)
    if waves.ndim != 3 or waves.shape[0] != 1 or not waves.numel() or rate is None:
        shape = tuple(waves.shape)
        raise PictureError(NOT_AS_ASKED, f"the pipeline returned sound of shape {shape} at {rate} samples a second", "")
    check_finite(waves, "the sound")
    return Sound(np.ascontiguousarray(waves[0].clamp(-1, 1).numpy()), rate)


def several(count: int) -> PictureError:
    """Return the error of an item for which several pictures came out."""
    remedy = "Leave out options such as num_images_per_prompt; for more samples of a prompt use seeds: [0, 1, ...]."
    return PictureError(NOT_AS_ASKED, f"{count} pictures came out for one item, which is one picture", remedy)


def check_asked(pictures: Pictures, sampling: Mapping[str, Any], cut: int = 0) -> None:
    """Check that frames and size are those of a sampling section, where it says them; `cut` frames were left out of them.

    Raises:
        PictureError: they are others.
    """
    count, height, width = pictures.frames.shape[:3]
    made = {"num_frames": count + cut, "height": height, "width": width}
    wrong = {name: value for name, value in made.items() if sampling.get(name) not in (None, value)}
    if not wrong:
        return
    told = ", ".join(f"{name} {sampling[name]} became {value}" for name, value in wrong.items())
    nearest = ", ".join(f"{name}: {value}" for name, value in wrong.items())
    # HunyuanVideo-Framepack makes whole sections, with more frames than it counts them for: no number may be its own.
    again = "then submit it again; where that becomes another again, leave it out"
    remedy = f"The pipeline rounds what it cannot make. In the job: sampling: {{{nearest}}}; {again}."
    raise PictureError(NOT_AS_ASKED, f"not what was asked for: {told}", remedy)


def _bytes(pictures: AnyFrames) -> Frames:
    if pictures.dtype == np.uint8:
        return pictures
    if pictures.dtype.kind != "f":
        raise PictureError(NOT_AS_ASKED, f"the pipeline returned {pictures.dtype} values, which are no pictures", "")
    check_finite(torch.from_numpy(np.ascontiguousarray(pictures, dtype=np.float32)), "the pictures")
    return (np.clip(pictures, 0, 1) * 255).round().astype(np.uint8)


def check_finite(values: Tensor, what: str, remedy: str = "") -> None:
    """Check that a tensor has neither NaN nor infinity. Raises PictureError with their number."""
    if values.is_floating_point() and not bool(torch.isfinite(values).all()):
        raise non_finite(values, what, remedy)


def non_finite(values: Tensor, what: str, remedy: str) -> PictureError:
    """Return the error of a tensor that is not finite, with how many of its values are not."""
    bad = int((~torch.isfinite(values)).sum())
    nan = int(torch.isnan(values).sum())
    kinds = "NaN" if nan == bad else "infinite" if not nan else "NaN or infinite"
    message = f"{what}: {bad:,} of {values.numel():,} values are {kinds}"
    return PictureError(
        NON_FINITE, message, remedy or "See the log; another solver or dtype may help; then submit again."
    )


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
