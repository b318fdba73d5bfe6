"""Inputs of a prompt as arguments of a pipeline's call: what each is called there, read off the names of its parameters.

Pipelines call the same thing by many names, and different things by one: `image` is the picture to start from, but that of
the control in a ControlNet pipeline of text alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

    Files = Sequence[Sequence[Image.Image]]

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

SEVERAL = re.compile(r"Flux2|EditPlus|OmniGen|VACE|ControlNet|Adapter")
"""Names of pipelines that take several pictures for one of their own: others would take them for a batch."""

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
        else:
            found[name] = pictures if len(pictures) > 1 or name in LISTS else pictures[0]
    return found


def not_taken(field: str, pipeline: str, parameters: Collection[str]) -> str:
    """Say that a pipeline takes no such input, and which it takes."""
    takes = sorted(arguments_of(pipeline, parameters))
    there = f"it takes {', '.join(takes)}" if takes else "it takes none"
    hint = ": it has no ControlNet (name one as model.controlnet)" if field == "control_image" else ""
    return f"{pipeline} takes no {field}{hint}; {there}"
