"""Whether a model makes what a job wants to have written, and heeds what each prompt brings with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genrun.runner.job.problems import Problem
from genrun.runner.job.tree import Value, dotted
from genrun.runner.job.wording import place

if TYPE_CHECKING:
    from genrun.runner.job.prompts import Prompt


def output_problems(root: Value, adapter: Any, sampling: Mapping[str, Any]) -> list[Problem]:
    """Check `output.format` against what the model makes, as far as that is known before it is loaded."""
    at = ("output", "format")
    value = root.find(at)
    wanted = None if value is None else value.data
    message = format_problem(wanted, getattr(adapter, "kind", None), sampling.get("num_frames"))
    return [Problem(place(root, at), dotted(at), f"{_label(adapter)} {message}.")] if message else []


def format_problem(wanted: Any, kind: str | None, num_frames: int | None) -> str:
    """Say what is wrong with a format for a model that makes clips or pictures; "" for nothing."""
    if wanted == "png" and kind == "video" and num_frames != 1:
        return "makes clips, and a PNG holds one picture. Use mp4, leave the format out, or set sampling.num_frames: 1"
    if wanted == "mp4" and kind == "image":
        return "makes pictures, not clips. Use png, or leave the format out"
    return ""


def negative_problems(adapter: Any, sampling: Mapping[str, Any], prompts: Sequence[Prompt]) -> list[Problem]:
    """Check that the model heeds negative prompts that come with prompts; the first that it does not is told."""
    if sampling.get("negative_prompt") is not None:
        return []  # told at the job's own
    for prompt in prompts:
        if prompt.negative_prompt is None:
            continue
        given = {**sampling, "negative_prompt": prompt.negative_prompt}
        wrong = [message for name, message in adapter.validate(given) if name == "negative_prompt"]
        if wrong:
            return [Problem(prompt.origin, "", f"negative_prompt: {wrong[0].rstrip('.')}.")]
    return []


def _label(adapter: Any) -> str:
    return str(getattr(adapter, "label", adapter.name))
