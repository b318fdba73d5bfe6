"""Tiny stock diffusers pipelines of every family, built offline from Python alone.

    pipeline = build("wan21")
    output = pipeline(**call_kwargs("wan21"))
    latents = latents_of(output)

Random seeded weights with nothing left at zero: each model's output depends visibly on the latents, the timestep
and the text. Components are real in type and tiny in size, VAEs and text encoders included.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor, nn

from . import images, videos
from .schedulers import SCHEDULERS, build_scheduler, build_scheduler_variants
from .weights import cast, randomize

__all__ = [
    "FAMILIES",
    "PROMPT",
    "SCHEDULERS",
    "STAGED_FAMILIES",
    "build",
    "build_scheduler",
    "build_scheduler_variants",
    "call_kwargs",
    "generator",
    "latents_of",
]

PROMPT = "a red circle moving left"
STEPS = 6

_SIZE = {"height": 32, "width": 32, "output_type": "latent"}
_IMAGE = {"prompt": PROMPT, **_SIZE}
_VIDEO = {**_IMAGE, "num_frames": 9}
_TRUE_GUIDANCE = {"negative_prompt": "gray", "true_cfg_scale": 3.0}


@dataclass(frozen=True)
class _Recipe:
    build: Callable[[], DiffusionPipeline]
    call: Mapping[str, Any] = field(default_factory=dict)


_RECIPES: Mapping[str, _Recipe] = {
    "sd3": _Recipe(images.sd3, {**_IMAGE, "guidance_scale": 5.0, "max_sequence_length": 16}),
    "flux": _Recipe(images.flux, {**_IMAGE, **_TRUE_GUIDANCE, "max_sequence_length": 16}),
    "flux2": _Recipe(images.flux2, {**_IMAGE, "guidance_scale": 4.0, "max_sequence_length": 32}),
    "flux2_klein": _Recipe(images.flux2_klein, {**_IMAGE, "guidance_scale": 4.0, "max_sequence_length": 32}),
    "hunyuanvideo": _Recipe(videos.hunyuanvideo, {**_VIDEO, **_TRUE_GUIDANCE, "max_sequence_length": 32}),
    "hunyuanvideo15": _Recipe(videos.hunyuanvideo15, {**_VIDEO, "negative_prompt": "gray"}),
    "wan21": _Recipe(videos.wan21, {**_VIDEO, "guidance_scale": 5.0, "max_sequence_length": 16}),
    "wan21_euler": _Recipe(videos.wan21_euler, {**_VIDEO, "guidance_scale": 5.0, "max_sequence_length": 16}),
    "wan22": _Recipe(
        videos.wan22, {**_VIDEO, "guidance_scale": 4.0, "guidance_scale_2": 3.0, "max_sequence_length": 16}
    ),
    "wan22_5b": _Recipe(
        videos.wan22_5b, {**_VIDEO, "height": 64, "width": 64, "guidance_scale": 5.0, "max_sequence_length": 16}
    ),
    "cogvideox_ddim": _Recipe(videos.cogvideox_ddim, {**_VIDEO, "guidance_scale": 6.0}),
    "cogvideox_dpm": _Recipe(videos.cogvideox_dpm, {**_VIDEO, "guidance_scale": 6.0, "use_dynamic_cfg": True}),
    "sd2": _Recipe(images.sd2, {**_IMAGE, "guidance_scale": 7.5, "height": 64, "width": 64}),
    "ddpm": _Recipe(images.ddpm, {"output_type": "pt"}),
    "qwenimage": _Recipe(images.qwenimage, {**_IMAGE, **_TRUE_GUIDANCE}),
    "ltx": _Recipe(videos.ltx, {**_VIDEO, "height": 64, "width": 64, "guidance_scale": 3.0, "max_sequence_length": 16}),
}

FAMILIES: tuple[str, ...] = tuple(_RECIPES)
STAGED_FAMILIES = tuple(family for family in FAMILIES if family != "ddpm")
"""Those with text encoders."""


def build(family: str, dtype: torch.dtype = torch.float32) -> Any:
    """A tiny pipeline on the CPU: the same weights every time, the global random state left as it was.

    Args:
        family: One of `FAMILIES`.
        dtype: Floating dtype of the weights, placed as `from_pretrained(..., dtype=dtype)` would.

    Raises:
        KeyError: `family` is not in `FAMILIES`.
    """
    with torch.random.fork_rng(devices=[]):
        pipeline = _RECIPES[family].build()
    for name, component in pipeline.components.items():
        if isinstance(component, nn.Module):
            randomize(name, component.eval())
            cast(component, dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def call_kwargs(family: str, seed: int = 0) -> dict[str, Any]:
    """Arguments for a short, guided call that returns latents; the generator is fresh each time.

    Args:
        family: One of `FAMILIES`.
        seed: Of the generator.

    Raises:
        KeyError: `family` is not in `FAMILIES`.
    """
    return {**_RECIPES[family].call, "num_inference_steps": STEPS, "generator": generator(seed)}


def generator(seed: int) -> torch.Generator:
    """A CPU generator seeded with `seed`."""
    return torch.Generator().manual_seed(seed)


def latents_of(output: Any) -> Tensor:
    """The tensor in a pipeline's output, which names it `images` or `frames`."""
    return output.frames if "frames" in output else output.images
