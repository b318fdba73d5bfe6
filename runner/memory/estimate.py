"""The memory that a rank will need, by mode of offloading: the largest of encoding, denoising and decoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrun.adapters.checkpoint.index import index_of
from genrun.adapters.pipeline.load_options import LoadOptions, Offload
from genrun.runner.errors import UsageError
from genrun.runner.job.checkpoint import Checkpoint
from genrun.runner.memory.activations import STACKED, Shape, decoder_numbers, denoiser_numbers, latent_shape
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
