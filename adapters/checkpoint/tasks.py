"""Classes of diffusers that run the same components for other tasks: a picture to start from, a mask, a ControlNet."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache

from genrun.adapters.checkpoint.pipeline_classes import is_exported, source_of

TASKS: Mapping[str, tuple[str, ...]] = {
    "text-to-image": ("",),
    "image-to-image": ("Img2Img", "Image2Image"),
    "inpainting": ("Inpaint", "Inpainting"),
    "text-to-video": ("",),
    "image-to-video": ("ImageToVideo", "Image2Video", "I2V"),
    "video-to-video": ("VideoToVideo", "Video2Video", "V2V"),
}
"""Task -> the words for it in names of pipeline classes."""

CONTROLS: Mapping[str, str] = {
    "controlnet_union": "ControlNetUnion",
    "controlnet": "ControlNet",
    "t2i_adapter": "Adapter",
}
"""Addition to a pipeline -> the word for it in names of pipeline classes."""

UNION = "ControlNetUnionModel"
"""Class of a ControlNet that has pipelines of its own."""

_WORDS = sorted({word for words in TASKS.values() for word in words if word} | set(CONTROLS.values()), key=len)
_MARKED = re.compile(rf"({'|'.join(reversed(_WORDS))})(?=.*Pipeline$)")
_ENDINGS = {"controlnet_union": "-controlnet-union", "controlnet": "-controlnet"}
_MAPPINGS = {
    "text-to-image": "AUTO_TEXT2IMAGE_PIPELINES_MAPPING",
    "image-to-image": "AUTO_IMAGE2IMAGE_PIPELINES_MAPPING",
    "inpainting": "AUTO_INPAINT_PIPELINES_MAPPING",
    "text-to-video": "AUTO_TEXT2VIDEO_PIPELINES_MAPPING",
    "image-to-video": "AUTO_IMAGE2VIDEO_PIPELINES_MAPPING",
    "video-to-video": "AUTO_VIDEO2VIDEO_PIPELINES_MAPPING",
}
"""Task -> the table of it in diffusers' auto_pipeline.py."""


def control_of(control: str | None, kind: str | None) -> str | None:
    """Return the control of a pipeline, by the key of a job and the class of the first that is named there.

    Args:
        control: controlnet, t2i_adapter, or None.
        kind: class of the ControlNet or adapter; None where it is not known.
    """
    return "controlnet_union" if control == "controlnet" and kind == UNION else control


def task_of(inputs: Collection[str], kind: str | None) -> str | None:
    """Return the task that given inputs stand for, or None where there are none.

    Args:
        inputs: names of what a prompt comes with: image, video, mask.
        kind: what the model makes, "video" or "image".
    """
    if "mask" in inputs:
        return "inpainting"
    if "video" in inputs:
        return "video-to-video"
    if "image" in inputs:
        return "image-to-video" if kind == "video" else "image-to-image"
    return None


@cache
def pipeline_for(class_name: str, task: str | None = None, control: str | None = None) -> str | None:
    """Return the pipeline class that runs the components of another one for a task; None where diffusers has none.

    Args:
        class_name: of the pipeline that a checkpoint says.
        task: one of `TASKS`; by default that of the class itself.
        control: one of `CONTROLS` that is added to the components, or None for that of the class itself.
    """
    if control is None and task is None:
        return class_name
    wanted = control or next((each for each, word in CONTROLS.items() if word in class_name), None)
    if task is None:
        words = tuple(_MARKED.findall(class_name))
        words = tuple(word for word in words if word not in CONTROLS.values()) or ("",)
    else:
        words = TASKS[task]
    table = {} if task is None else _tables().get(task, {})
    for name in [] if task is None else _keys(class_name, wanted):
        if name in table:
            return table[name]
    return next((name for name in _names(class_name, words, CONTROLS.get(wanted or "", "")) if is_exported(name)), None)


def _names(class_name: str, words: Collection[str], control: str) -> Iterator[str]:
    """Yield names that a class may have, as diffusers puts them together."""
    stem = _MARKED.sub("", class_name).removesuffix("Pipeline")
    for word in words:
        yield f"{stem}{control}{word}Pipeline"
        yield f"{stem}{word}{control}Pipeline"


def _keys(class_name: str, control: str | None) -> Iterator[str]:
    """Yield the name of a class's model in diffusers' tables, with that of a control."""
    for table in _tables().values():
        for key, found in table.items():
            if found == class_name:
                ending = _ENDINGS.get(control or "", "")
                yield f"{re.sub('-controlnet(-union)?$', '', key)}{ending}" if ending else key


@cache
def _tables() -> dict[str, dict[str, str]]:
    """Read the tables of diffusers' auto_pipeline.py: task -> model -> class."""
    named = {table: task for task, table in _MAPPINGS.items()}
    found: dict[str, dict[str, str]] = {}
    for node in source_of("auto_pipeline").body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
            continue
        task = named.get(ast.unparse(node.targets[0]))
        pairs = node.value.args[0] if node.value.args else None
        if task is not None and isinstance(pairs, ast.List):
            rows = [row.elts for row in pairs.elts if isinstance(row, ast.Tuple) and len(row.elts) == 2]
            found[task] = {str(ast.literal_eval(key)): ast.unparse(value) for key, value in rows}
    return found
