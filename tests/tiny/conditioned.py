"""Tiny stock pipelines that start from a picture or a clip, one of each kind, and what to call them with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from . import build
from .weights import randomize

# Untyped on purpose, as in `images`.
df: Any = import_module("diffusers")

SHORT = {"max_sequence_length": 16}


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        make: builds the pipeline.
        inputs: fields of a prompt -> files of `write_files`.
        arguments: the same files -> what the pipeline's call names them.
        sampling: of the job.
        row: further fields of the prompt.
    """

    make: Callable[[], Any]
    inputs: Mapping[str, str]
    arguments: Mapping[str, str]
    sampling: Mapping[str, Any] = field(default_factory=dict)
    row: Mapping[str, Any] = field(default_factory=dict)


def write_files(folder: Path) -> None:
    """Write start.png and end.png of 64 x 64 pixels, mask.png, and clip.mp4 of nine frames of 32 x 32."""
    from genrun.adapters.media import write_video

    random = np.random.default_rng(0)
    for name in ("start", "end"):
        coarse = Image.fromarray(random.integers(0, 255, (8, 8, 3), dtype=np.uint8))
        coarse.resize((64, 64), Image.Resampling.BILINEAR).save(folder / f"{name}.png")
    Image.fromarray(((np.indices((64, 64)).sum(0) > 64) * 255).astype(np.uint8)).save(folder / "mask.png")
    clip = random.integers(0, 255, (9, 4, 4, 3), dtype=np.uint8)
    write_video(folder / "clip.mp4", clip.repeat(8, axis=1).repeat(8, axis=2), 8)


def _of_sd2(kind: str, **changes: Any) -> Any:
    return getattr(df, kind)(**{**build("sd2").components, **changes}, requires_safety_checker=False)


def _fill() -> Any:
    """Build inpainting by a model whose channels are, packed in fours, latents, masked picture and 8 x 8 mask."""
    components = build("flux").components
    config = {name: value for name, value in components["transformer"].config.items() if not name.startswith("_")}
    transformer = df.FluxTransformer2DModel(**{**config, "in_channels": 16 + 16 + 4 * 64, "out_channels": 16})
    randomize("transformer", transformer.eval())
    names = ("scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    return df.FluxFillPipeline(**{name: components[name] for name in names}, transformer=transformer)


def _controlnet() -> Any:
    net = df.ControlNetModel.from_unet(build("sd2").unet)
    randomize("controlnet", net.eval())
    return _of_sd2("StableDiffusionControlNetPipeline", controlnet=net)


def _kontext() -> Any:
    components = build("flux").components
    return df.FluxKontextPipeline(**components)


def _first_and_last() -> Any:
    pipe = build("wan21")
    transformer = df.WanTransformer3DModel.from_config({**pipe.transformer.config, "in_channels": 36})
    randomize("transformer", transformer.eval())
    parts = {name: getattr(pipe, name) for name in ("tokenizer", "text_encoder", "vae", "scheduler")}
    return df.WanImageToVideoPipeline(**parts, transformer=transformer, image_encoder=None, image_processor=None)


KINDS: Mapping[str, Kind] = {
    "image-to-image": Kind(
        lambda: _of_sd2("StableDiffusionImg2ImgPipeline"),
        {"image": "start.png"},
        {"image": "start.png"},
        {"guidance_scale": 4.0},
        {"strength": 0.6},
    ),
    "inpainting": Kind(
        _fill,
        {"image": "start.png", "mask": "mask.png"},
        {"image": "start.png", "mask_image": "mask.png"},
        {"guidance_scale": 4.0, "height": 64, "width": 64, "options": SHORT},
    ),
    "control": Kind(
        _controlnet,
        {"control_image": "start.png"},
        {"image": "start.png"},
        {"guidance_scale": 4.0, "height": 64, "width": 64},
    ),
    "editing": Kind(
        _kontext,
        {"image": "start.png"},
        {"image": "start.png"},
        {
            "guidance_scale": 4.0,
            "height": 64,
            "width": 64,
            "options": {**SHORT, "max_area": 4096, "_auto_resize": False},
        },
    ),
    "image-to-video": Kind(
        lambda: df.LTXImageToVideoPipeline(**build("ltx").components),
        {"image": "start.png"},
        {"image": "start.png"},
        {"guidance_scale": 3.0, "height": 64, "width": 64, "num_frames": 9, "options": SHORT},
    ),
    "video-to-video": Kind(
        lambda: df.CogVideoXVideoToVideoPipeline(**build("cogvideox_ddim").components),
        {"video": "clip.mp4"},
        {"video": "clip.mp4"},
        {"guidance_scale": 4.0, "height": 32, "width": 32},
        {"strength": 0.7},
    ),
    "first-and-last-frame": Kind(
        _first_and_last,
        {"image": "start.png", "last_image": "end.png"},
        {"image": "start.png", "last_image": "end.png"},
        {"guidance_scale": 4.0, "height": 32, "width": 32, "num_frames": 5, "options": SHORT},
    ),
}


def plain_pictures(pipe: Any, kind: Kind, folder: Path, prompt: str, steps: int, seed: int) -> np.ndarray:
    """Call a pipeline by itself, with files read as diffusers reads them; return uint8 (T, H, W, 3)."""
    from diffusers.utils.loading_utils import load_image

    from genrun.adapters.media import read_frames

    def value(name: str, argument: str) -> Any:
        if name.endswith(".mp4"):
            return [Image.fromarray(frame) for frame in read_frames(folder / name)]
        picture = load_image(str(folder / name))
        return picture.convert("L") if argument == "mask_image" else picture

    given = {argument: value(name, argument) for argument, name in kind.arguments.items()}
    sampling = {**kind.sampling, **kind.row}
    options = sampling.pop("options", {})
    call = {**sampling, **options, **given, "prompt": prompt, "num_inference_steps": steps, "output_type": "np"}
    output = pipe(**call, generator=torch.Generator().manual_seed(seed))
    pictures = output.frames[0] if hasattr(output, "frames") else output.images
    return (np.clip(pictures, 0, 1) * 255).round().astype(np.uint8)
