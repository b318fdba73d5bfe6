"""Arguments of a pipeline's call: options that a job may give, and inputs of a prompt, by what each is called there.

Pipelines call the same thing by many names, and different things by one: `image` is the picture to start from, but that of
the control in a ControlNet pipeline of text alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genrun.adapters.checkpoint.call_types import wrong_value
from genrun.adapters.checkpoint.pipeline_classes import MEDIA

if TYPE_CHECKING:
    from PIL import Image

    Files = Sequence[Sequence[Image.Image]]


_SEEDS = "one item is one picture: write more `seeds`"
_OURS = "genrun takes the pictures from the pipeline itself: leave it out"
_NOISE = "the noise is drawn from `seeds`: leave it out"
_CALLBACK = "a job holds no functions: leave it out"

GIVEN = {
    "prompt": "write `prompts`",
    "negative_prompt": "write sampling.negative_prompt, or one with each prompt",
    "num_inference_steps": "write sampling.steps",
    "guidance_scale": "write sampling.guidance_scale",
    "height": "write sampling.height",
    "width": "write sampling.width",
    "num_frames": "write sampling.num_frames",
    "generator": _NOISE,
    "latents": _NOISE,
    "noise": _NOISE,
    "num_images_per_prompt": _SEEDS,
    "num_videos_per_prompt": _SEEDS,
    "num_waveforms_per_prompt": _SEEDS,
    "batch_size": _SEEDS,
    "output_type": _OURS,
    "return_dict": _OURS,
    "callback": _CALLBACK,
    "callback_steps": _CALLBACK,
    "callback_on_step_end": _CALLBACK,
    "callback_on_step_end_tensor_inputs": _CALLBACK,
}
"""Arguments of a call that are not a job's to give as options, and what to do instead."""

COUNTS = frozenset(name for name, instead in GIVEN.items() if instead == _SEEDS)
"""Arguments of `GIVEN` for the number of pictures of a call: a value of one is harmless."""

GRIDS = ("timesteps", "sigmas")
"""Arguments that say every step."""

SHOWN = 80
"""Letters of a value that a message tells."""

_TENSORS = re.compile(r"\w*(embeds?|embeds_mask|attention_mask|prompt_mask|latents)")


class OptionsError(ValueError):
    """An option that the loaded pipeline's call does not take.

    Attributes:
        remedy: what to do.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


def refusals(
    options: Mapping[str, Any], steps: int | None, pipeline: str | None, parameters: Collection[str] | None
) -> Iterator[tuple[str, str]]:
    """Name options that a job may not give, and why.

    Args:
        options: of `sampling.options`.
        steps: of `sampling.steps`, where that is known.
        pipeline: the class of the pipeline, or None where it is not known.
        parameters: names of the arguments of its call, or None where they are not known.
    """
    for name, value in options.items():
        if name in GIVEN and not (name in COUNTS and type(value) is int and value == 1):
            yield name, f"is no option: {GIVEN[name]}"
        elif parameters is not None and name not in parameters:
            yield name, unknown(name, pipeline, parameters)
        elif MEDIA.fullmatch(name) or _TENSORS.fullmatch(name):
            yield name, "is a picture or a tensor, which a job cannot hold: leave it out"
        elif name in GRIDS and value is not None:
            yield from ((name, wrong) for wrong in [_wrong_grid(value, steps)] if wrong)
        elif pipeline is not None and parameters is not None and (wrong := wrong_value(pipeline, name, value)):
            yield name, f"{wrong}, got {_shown(value)}"


def unknown(name: str, pipeline: str | None, parameters: Collection[str]) -> str:
    """Say that a pipeline's call has no such argument, and which was meant, or which there are."""
    import difflib

    there = sorted(
        each for each in parameters if each not in GIVEN and not MEDIA.fullmatch(each) and not _TENSORS.fullmatch(each)
    )
    close = difflib.get_close_matches(name, [*there, *(set(parameters) & GIVEN.keys())], n=1, cutoff=0.6)
    meant = f" Did you mean {close[0]!r}?" if close else f" It takes {', '.join(there)}" if there else " It takes none"
    return f"{pipeline} takes no {name!r}.{meant}"


def _wrong_grid(value: Any, steps: int | None) -> str:
    """Say what is wrong with a list of all timesteps or sigmas; "" where nothing is."""
    is_number = [isinstance(each, int | float) and not isinstance(each, bool) for each in _listed(value)]
    if not is_number or not all(is_number):
        return "wanted a list of numbers, one for each step"
    if steps is not None and len(is_number) != steps:
        return f"has {len(is_number)} numbers, and sampling.steps is {steps}: write as many"
    return ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "image": ("image", "images", "input_images", "reference_images", "reference_image", "cond_image"),
    "last_image": ("last_image", "end_image"),
    "video": ("video",),
    "mask": ("mask_image", "mask"),
    "control_image": ("control_image", "control_video", "conditioning_frames"),
    "ip_adapter_image": ("ip_adapter_image",),
}
"""Field of a prompt -> what pipelines call it."""

CLIPS = frozenset({"video", "control_video", "conditioning_frames"})
"""Arguments that take a clip, as a list of frames."""

LISTS = frozenset({"images", "input_images", "reference_images"})
"""Arguments that take a list of pictures, also where it is one."""

SEVERAL = re.compile(r"Flux2|EditPlus|OmniGen|VACE")
"""Names of pipelines that take several pictures for one of their own: others would take them for a batch."""

LOOK = "ip_adapter_image"
ONE_LOOK = re.compile("StableDiffusion3")
"""Names of pipelines whose IP-Adapter would take several pictures for a batch; others take a list for each adapter."""

CONTROLLED = re.compile(r"ControlNet|Adapter")
REDRAWING = re.compile(r"Img2Img|Inpaint")
"""Names of pipelines with a control; and of those among them that start from a picture besides."""

FREE_SIZE = re.compile(r"Edit|Kontext|Flux2|OmniGen|Pix2Pix|PaintByExample|Blip|Variation|Cascade|VACE")
"""Names of pipelines that look at a picture whatever its size and shape are, and make one of another."""


def arguments_of(pipeline: str, parameters: Collection[str]) -> dict[str, str]:
    """Return field of a prompt -> the argument that it becomes, for those that a pipeline takes.

    Args:
        pipeline: its class.
        parameters: names of the arguments of its call.
    """
    found = {
        field: next(name for name in names if name in parameters)
        for field, names in ARGUMENTS.items()
        if any(name in parameters for name in names)
    }
    if "control_image" not in found and CONTROLLED.search(pipeline) and not REDRAWING.search(pipeline):
        image = found.pop("image", None)
        return {**found, "control_image": image} if image else found
    # A mask of VACE is a clip of them, one for each frame.
    return found


def is_clip(pipeline: str, argument: str) -> bool:
    """Tell whether an argument takes a clip."""
    return argument in CLIPS or (argument == "mask" and "VACE" in pipeline)


def takes_several(pipeline: str, argument: str) -> bool:
    """Tell whether an argument takes several pictures for one item."""
    if argument == LOOK:
        return ONE_LOOK.search(pipeline) is None
    if CONTROLLED.search(pipeline):
        # One for each control; a picture to start from, and its mask, are one.
        is_start = argument == "image" and REDRAWING.search(pipeline) is not None
        return not is_start and argument in ("image", *ARGUMENTS["control_image"], *LISTS)
    return argument in LISTS or SEVERAL.search(pipeline) is not None


def call_inputs(pipeline: str, parameters: Collection[str], inputs: Mapping[str, Files]) -> dict[str, Any]:
    """Return the arguments that a request's inputs become; those that the pipeline does not take are left out.

    Args:
        pipeline: its class.
        parameters: names of the arguments of its call.
        inputs: field -> files, each by its frames.
    """
    names = arguments_of(pipeline, parameters)
    found: dict[str, Any] = {}
    for field, files in inputs.items():
        if field not in names:
            continue
        name = names[field]
        mode = "L" if field == "mask" else "RGB"
        shown = [[frame.convert(mode) for frame in frames] for frames in files]
        pictures = [frames[0] for frames in shown]
        if is_clip(pipeline, name):
            found[name] = shown[0]
        elif name == LOOK and len(pictures) > 1:
            # A list would be one picture for each of several adapters.
            found[name] = [pictures]
        else:
            found[name] = pictures if len(pictures) > 1 or name in LISTS else pictures[0]
    return found


def not_taken(field: str, pipeline: str, parameters: Collection[str]) -> str:
    """Say that a pipeline takes no such input, and which it takes."""
    takes = sorted(arguments_of(pipeline, parameters))
    there = f"it takes {', '.join(takes)}" if takes else "it takes none"
    hint = ": it has no ControlNet (name one as model.controlnet)" if field == "control_image" else ""
    return f"{pipeline} takes no {field}{hint}; {there}"
