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
from PIL import Image
from torch import Tensor, nn

from . import from_picture, images, videos
from .schedulers import SCHEDULERS, build_scheduler, build_scheduler_variants
from .weights import cast, randomize

__all__ = [
    "CHUNKED",
    "FAMILIES",
    "PROMPT",
    "SCHEDULERS",
    "STAGED_FAMILIES",
    "WITH_PICTURE",
    "build",
    "build_scheduler",
    "build_scheduler_variants",
    "call_kwargs",
    "generator",
    "latents_of",
    "picture",
]

PROMPT = "a red circle moving left"
STEPS = 6

_SIZE = {"height": 32, "width": 32, "output_type": "latent"}
_IMAGE = {"prompt": PROMPT, **_SIZE}
_VIDEO = {**_IMAGE, "num_frames": 9}
_TRUE_GUIDANCE = {"negative_prompt": "gray", "true_cfg_scale": 3.0}


_SOUND = {**_VIDEO, "height": 64, "width": 64, "guidance_scale": 3.0, "max_sequence_length": 16}
_SOUND |= {"spatio_temporal_guidance_blocks": [1]}
LLAVA = {"template": "{}", "crop_start": 0, "image_emb_len": 16, "image_emb_start": 1, "image_emb_end": 17}
"""The prompt alone, and the picture's tokens after the first."""


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
    "z_image": _Recipe(images.z_image, {**_IMAGE, "guidance_scale": 4.0, "negative_prompt": "gray"}),
    "sana": _Recipe(
        images.sana,
        {**_IMAGE, "guidance_scale": 4.5, "max_sequence_length": 16, "use_resolution_binning": False}
        | {"complex_human_instruction": None},
    ),
    "sdxl": _Recipe(images.sdxl, {**_IMAGE, "guidance_scale": 5.0, "height": 64, "width": 64}),
    "mochi": _Recipe(videos.mochi, {**_VIDEO, "num_frames": 7, "guidance_scale": 4.5, "max_sequence_length": 16}),
    "ltx2": _Recipe(videos.ltx2, _SOUND),
}
_CONDITIONED: Mapping[str, _Recipe] = {
    "wan21_i2v": _Recipe(from_picture.wan21_i2v, {**_VIDEO, "guidance_scale": 5.0, "max_sequence_length": 16}),
    "wan22_i2v": _Recipe(
        from_picture.wan22_i2v, {**_VIDEO, "guidance_scale": 4.0, "guidance_scale_2": 3.0, "max_sequence_length": 16}
    ),
    "wan22_5b_i2v": _Recipe(
        from_picture.wan22_5b_i2v,
        {**_VIDEO, "height": 64, "width": 64, "guidance_scale": 5.0, "max_sequence_length": 16},
    ),
    "hunyuanvideo_i2v": _Recipe(
        from_picture.hunyuanvideo_i2v,
        {**_VIDEO, **_TRUE_GUIDANCE, "guidance_scale": 6.0, "max_sequence_length": 64, "prompt_template": LLAVA},
    ),
    "hunyuanvideo15_i2v": _Recipe(
        from_picture.hunyuanvideo15_i2v,
        {"prompt": PROMPT, "num_frames": 9, "negative_prompt": "gray", "output_type": "latent"},
    ),
    "cogvideox15_i2v": _Recipe(from_picture.cogvideox15_i2v, {**_VIDEO, "guidance_scale": 6.0}),
    "ltx2_i2v": _Recipe(from_picture.ltx2_i2v, _SOUND),
    "qwenimage_edit": _Recipe(from_picture.qwenimage_edit, {**_IMAGE, **_TRUE_GUIDANCE, "height": 128, "width": 128}),
    "qwenimage_edit_first": _Recipe(
        from_picture.qwenimage_edit_first, {**_IMAGE, **_TRUE_GUIDANCE, "height": 128, "width": 128}
    ),
    "flux_kontext": _Recipe(
        from_picture.flux_kontext,
        {**_IMAGE, **_TRUE_GUIDANCE, "max_sequence_length": 16, "max_area": 32 * 32, "_auto_resize": False},
    ),
}

_CHUNKED: Mapping[str, _Recipe] = {
    "helios": _Recipe(
        videos.helios,
        {**_VIDEO, "num_frames": 66, "guidance_scale": 4.0, "max_sequence_length": 16, "negative_prompt": ""},
    ),
}

FAMILIES: tuple[str, ...] = tuple(_RECIPES)
OF_EACH_LOOP = ("sd2", "flux", "wan21", "cogvideox_dpm", "hunyuanvideo15", "ltx2", "ddpm")
"""U-Net and transformer, pictures and clips, guidance in one call and in two, a guider, sound, and no prompt at all."""
WITH_PICTURE: tuple[str, ...] = tuple(_CONDITIONED)
"""Those that start from a picture, which `call_kwargs` draws."""
CHUNKED: tuple[str, ...] = tuple(_CHUNKED)
"""Those that sample a clip in several loops, one after another."""
STAGED_FAMILIES = tuple(family for family in FAMILIES if family != "ddpm")
"""Those with text encoders."""


def build(family: str, dtype: torch.dtype = torch.float32) -> Any:
    """A tiny pipeline on the CPU: the same weights every time, the global random state left as it was.

    Args:
        family: One of `FAMILIES`, `WITH_PICTURE` or `CHUNKED`.
        dtype: Floating dtype of the weights, placed as `from_pretrained(..., dtype=dtype)` would.

    Raises:
        KeyError: `family` is not in `FAMILIES`.
    """
    with torch.random.fork_rng(devices=[]):
        pipeline = _recipe(family).build()
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
    given = {"image": picture()} if family in _CONDITIONED else {}
    return {**given, **_recipe(family).call, "num_inference_steps": STEPS, "generator": generator(seed)}


def picture(side: int = 64) -> Image.Image:
    """A picture of two colours, none of them plain."""
    image = Image.new("RGB", (side, side), (40, 90, 160))
    image.paste((220, 60, 30), (side // 4, side // 4, side // 2, 3 * side // 4))
    return image


def _recipe(family: str) -> _Recipe:
    return {**_RECIPES, **_CONDITIONED, **_CHUNKED}[family]


def generator(seed: int) -> torch.Generator:
    """A CPU generator seeded with `seed`."""
    return torch.Generator().manual_seed(seed)


def latents_of(output: Any) -> Tensor:
    """The tensor in a pipeline's output, which names it `images` or `frames`."""
    return output.frames if "frames" in output else output.images
