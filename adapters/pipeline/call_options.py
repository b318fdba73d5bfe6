"""Options of a job that become arguments of the pipeline's call: which a job may give, and which genrun gives itself."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from genrun.adapters.checkpoint.call_types import wrong_value
from genrun.adapters.checkpoint.pipeline_classes import MEDIA

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
