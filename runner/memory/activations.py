"""Memory that a model takes besides its weights while it works: rules of thumb, measured on the real architectures.

`python -m tests.bench.activations` measures them: it runs diffusers' own classes on tensors without storage, and adds up
what is alive at once. Attention is taken to be one that never forms the matrix of all pairs (flash, or any of its like).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STACKED = ("StableDiffusion3Pipeline", "CogVideoXPipeline", "LTXPipeline", "StableDiffusionPipeline")
"""Pipelines that evaluate both halves of the guidance in one call."""

TEXT_TOKENS = 512
"""Tokens of a prompt, as the longest of the usual encoders pads it."""

PER_TOKEN = {
    "FluxTransformer2DModel": 17.4,
    "SD3Transformer2DModel": 12.5,
    "HunyuanVideoTransformer3DModel": 18.2,
    "WanTransformer3DModel": 16.0,
    "CogVideoXTransformer3DModel": 13.1,
}
"""Numbers alive at once for each token and each unit of a transformer's width."""

PER_TOKEN_OTHERS = 18.2
"""The same number for other transformers: the largest measured, to be on the safe side."""

PER_LATENT_PIXEL = 26.1
"""The same for each pixel that a U-Net sees and each channel of its first block."""

PER_PIXEL = {
    "AutoencoderKL": 6.1,
    "AutoencoderKLWan": 55.5,
    "AutoencoderKLQwenImage": 18.1,
    "AutoencoderKLCogVideoX": 178.8,
    "AutoencoderKLHunyuanVideo": 153.8,
}
"""Numbers alive at once in a VAE's decoder for each pixel of a frame and each channel of its last block.

Those of videos work on a few frames at a time."""

PER_PIXEL_OF_ONE_FRAME, FRAMES_AT_ONCE = 9.0, 17
"""The same number for other VAEs, for each frame of a clip; and the most frames that a VAE works on at once."""

TILE = 256
"""Pixels of a tile's side where the VAE's configuration says none."""


@dataclass(frozen=True)
class Shape:
    """The size of a sample.

    Attributes:
        height, width: pixels.
        num_frames: of a clip; 1 for an image.
    """

    height: int
    width: int
    num_frames: int = 1


def spatial_ratio(kind: str, config: Mapping[str, Any]) -> int:
    """Return pixels for each latent along a side."""
    for name in ("spatial_compression_ratio", "scale_factor_spatial"):
        if config.get(name):
            return int(config[name])
    if kind == "AutoencoderKLLTXVideo":
        return 32
    widths = config.get("block_out_channels")
    return 2 ** (len(widths) - 1) if widths else 8


def temporal_ratio(kind: str, config: Mapping[str, Any]) -> int:
    """Return frames for each latent along time."""
    usual = 8 if kind == "AutoencoderKLLTXVideo" else 4
    return int(config.get("temporal_compression_ratio") or config.get("scale_factor_temporal") or usual)


def latent_shape(kind: str | None, config: Mapping[str, Any], shape: Shape) -> tuple[int, int, int, int]:
    """Return channels, frames, height and width of the latents; of the pixels themselves where there is no VAE."""
    if kind is None:
        return 3, 1, shape.height, shape.width
    side = spatial_ratio(kind, config)
    frames = 1 if shape.num_frames == 1 else (shape.num_frames - 1) // temporal_ratio(kind, config) + 1
    channels = int(config.get("latent_channels") or config.get("z_dim") or 16)
    return channels, frames, -(-shape.height // side), -(-shape.width // side)


def denoiser_numbers(kind: str, config: Mapping[str, Any], latents: tuple[int, int, int, int]) -> float:
    """Return the numbers alive at once in one evaluation of one sample."""
    channels, frames, height, width = latents
    if "num_attention_heads" not in config or not isinstance(config.get("attention_head_dim"), int):
        return PER_LATENT_PIXEL * _first(config.get("block_out_channels"), 320) * height * width
    is_packed = config.get("in_channels") == 4 * channels
    time, side = _patch(config)
    tokens = frames // time * (height // (2 if is_packed else side)) * (width // (2 if is_packed else side))
    heads = config["num_attention_heads"] * config["attention_head_dim"]
    return PER_TOKEN.get(kind, PER_TOKEN_OTHERS) * (tokens + TEXT_TOKENS) * heads


def decoder_numbers(kind: str, config: Mapping[str, Any], shape: Shape, *, tiled: bool) -> float:
    """Return the numbers alive at once while a VAE decodes; its pixels in float32, and with tiles their row, count too."""
    channels = _first(config.get("block_out_channels"), config.get("base_dim") or 128)
    height, width, frames = shape.height, shape.width, shape.num_frames
    pixels = 3 * height * width * frames
    if tiled:
        side = _first(config.get("sample_size"), TILE) if kind == "AutoencoderKL" else TILE
        height, width = min(height, side), min(width, side)
    live = PER_PIXEL.get(kind, PER_PIXEL_OF_ONE_FRAME * min(frames, FRAMES_AT_ONCE))
    return live * channels * height * width + (3 if tiled else 1) * pixels


def _patch(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return the latents of a token along time and along a side."""
    patch = config.get("patch_size", 1)
    if isinstance(patch, list | tuple):
        return int(patch[0]), int(patch[-1])
    return int(config.get("patch_size_t") or 1), int(patch or 1)


def _first(value: Any, otherwise: Any) -> int:
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    return int(value or otherwise)
