"""Memory that a rank will need, by mode of offloading: the largest of encoding, denoising and decoding.

`python -m tests.bench.activations` measures them: it runs diffusers' own classes on tensors without storage, and adds up
what is alive at once. Attention is taken to be one that never forms the matrix of all pairs (flash, or any of its like).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrun.adapters.checkpoint.index import index_of
from genrun.adapters.pipeline.load_options import LoadOptions, Offload
from genrun.runner.errors import UsageError
from genrun.runner.job.checkpoint import Checkpoint
from genrun.runner.memory.weights import BYTES, Component, components

MODES: tuple[Offload, ...] = ("none", "model", "group", "sequential")
"""Modes of offloading, from the fastest to the slowest."""

CONTEXT_BYTES = 500 * 2**20
"""Part of every stage: held by a GPU's driver and libraries, or lost in gaps by the allocator."""

COPIES_OF_TRAJECTORY = 4
"""Trajectories of latents in float32 that a parallel solver keeps: states, outputs, and two that a sweep makes of them."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Memory of one rank in one mode, in bytes.

    Attributes:
        mode: what is offloaded.
        tiled: True when the VAE decodes in tiles.
        encode_bytes: while prompts are encoded.
        denoise_bytes: while a sample is denoised.
        decode_bytes: while it is decoded.
    """

    mode: Offload
    tiled: bool
    encode_bytes: int
    denoise_bytes: int
    decode_bytes: int

    @property
    def peak_bytes(self) -> int:
        """The largest of the three stages."""
        return max(self.encode_bytes, self.denoise_bytes, self.decode_bytes)

    @property
    def options(self) -> str:
        """The options to write below `model:`, or "" where none is needed."""
        offload = [] if self.mode == "none" else [f"offload: {self.mode}"]
        return ", ".join([*offload, *(["vae: {tiling: true, slicing: true}"] if self.tiled else [])])


@dataclass(frozen=True)
class MemorySubject:
    """A model, and the sample that it is to make.

    Attributes:
        folder: of the checkpoint.
        holding: how its weights are held; its offloading and tiles are those that are tried.
        shape: what is made.
        steps: N, states of a trajectory.
        guidance: True when both halves of a guidance are evaluated.
    """

    folder: Path
    holding: LoadOptions
    shape: Shape
    steps: int
    guidance: bool = True


def folder_of(checkpoint: Checkpoint, revision: str | None) -> Path:
    """Return a checkpoint's folder: its own, or that of the hub's cache. Downloads nothing.

    Raises:
        UsageError: a hub id that is not in the cache.
    """
    folder = checkpoint.local_folder(revision)
    if folder is None:
        remedy = f"Get it first: hf download {checkpoint.name}; or --set model.checkpoint=FOLDER."
        raise UsageError(f"{checkpoint.name}: is not on this machine, so its sizes are not known.", remedy=remedy)
    return folder


def estimates(subject: MemorySubject) -> list[MemoryEstimate]:
    """Return every mode, each without and with tiles, from the fastest to the most frugal.

    Raises:
        ValueError: the folder is no pipeline, or not whole.
        OSError: a file cannot be read.
    """
    parts = components(subject.folder, subject.holding)
    working = _working_bytes(subject, parts)
    return [_estimate(mode, tiled, parts, working) for mode in MODES for tiled in (False, True)]


def fastest(found: Sequence[MemoryEstimate], size_bytes: int) -> MemoryEstimate | None:
    """Return the first mode that fits into a device's memory."""
    return next((each for each in found if each.peak_bytes <= size_bytes), None)


def shape_of(folder: Path, sampling: Mapping[str, Any], holding: LoadOptions | None = None) -> Shape:
    """Return the size that a job samples: its own, or what the checkpoint's denoiser was made for.

    Raises:
        ValueError: neither says.
    """
    parts = components(folder, holding or LoadOptions())
    config = next((part.config for part in parts if part.is_denoiser), {})
    vae = next((part for part in parts if part.name == "vae"), None)
    _, _, unit, _ = latent_shape(vae and vae.kind, vae.config if vae else {}, Shape(2**12, 2**12))
    sides = []
    for name in ("height", "width"):
        latent = config.get(f"sample_{name}") or config.get("sample_size")
        side = sampling.get(name) or (int(latent) * (2**12 // unit) if isinstance(latent, int) else None)
        if side is None:
            raise ValueError(f"sampling.{name} is not known: set it")
        sides.append(int(side))
    return Shape(sides[0], sides[1], int(sampling.get("num_frames") or config.get("sample_frames") or 1))


def _working_bytes(subject: MemorySubject, parts: Sequence[Component]) -> Callable[[str, bool], int]:
    """Return memory besides weights, by stage and tiles."""
    vae = next((part for part in parts if part.name == "vae"), None)
    latents = latent_shape(vae and vae.kind, vae.config if vae else {}, subject.shape)
    samples = 2 if subject.guidance and index_of(subject.folder).get("_class_name") in STACKED else 1
    denoisers = [part for part in parts if part.is_denoiser]
    evaluation = max(
        (
            samples * denoiser_numbers(part.kind, part.config, latents) * BYTES[subject.holding.dtype_of(part.name)]
            for part in denoisers
        ),
        default=0,
    )
    channels, frames, height, width = latents
    trajectory = COPIES_OF_TRAJECTORY * (subject.steps + 1) * channels * frames * height * width * 4

    def working(stage: str, tiled: bool) -> int:
        if stage == "denoise":
            return int(evaluation + trajectory)
        if stage == "decode" and vae is not None:
            numbers = decoder_numbers(vae.kind, vae.config, subject.shape, tiled=tiled)
            return int(numbers * BYTES[subject.holding.dtype_of("vae")])
        return 0

    return working


def _estimate(
    mode: Offload, tiled: bool, parts: Sequence[Component], working: Callable[[str, bool], int]
) -> MemoryEstimate:
    encoders = [part for part in parts if part.is_encoder]
    others = [part for part in parts if not part.is_encoder]
    stages = {
        "encode": _held(mode, encoders, encoders),
        "denoise": _held(mode, others, [part for part in others if part.is_denoiser]),
        "decode": _held(mode, others, [part for part in others if not part.is_denoiser]),
    }
    sizes = {name: held + working(name, tiled) + CONTEXT_BYTES for name, held in stages.items()}
    return MemoryEstimate(mode, tiled, sizes["encode"], sizes["denoise"], sizes["decode"])


def _held(mode: Offload, loaded: Sequence[Component], working: Sequence[Component]) -> int:
    """Return the weights on the device in a stage: of all that is loaded, or of the one at work."""
    if mode == "none":
        return sum(part.total_bytes for part in loaded)
    by_mode: dict[str, Callable[[Component], int]] = {
        "model": lambda part: part.total_bytes,
        "group": lambda part: part.group_bytes,
        "sequential": lambda part: part.layer_bytes,
    }
    return max((by_mode[mode](part) for part in working), default=0)


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
