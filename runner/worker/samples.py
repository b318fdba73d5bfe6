"""Sampled items that are not decoded yet: fresh from a pipeline, or from the latents that were saved."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.store.records import Note, SamplerStats

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from genrun.adapters.pipeline.pictures import Pictures
    from genrun.adapters.sampling.generate import Sampled

LATENTS = "latents"
"""Name of the tensor in a latents file."""


@dataclass(frozen=True)
class Decoded:
    """Pictures, and at which pace they are shown.

    Attributes:
        pictures: what the pipeline made.
        fps: frames a second of a clip.
        knows_fps: whether that is the model's own; else it is a guess.
    """

    pictures: Pictures
    fps: float
    knows_fps: bool

    @property
    def frames(self) -> np.ndarray:
        """Uint8 (T, H, W, C)."""
        return self.pictures.frames


@dataclass(frozen=True)
class PipelineSample:
    """A sampled item.

    Attributes:
        sampled: its latents.
        decode_latents: decodes them; is told whether to save memory.
        is_apart: whether that may be done in another thread while the next item is sampled.
        notes: what sampling shows that has to be told.
    """

    sampled: Sampled
    decode_latents: Callable[[Tensor, bool], tuple[Decoded, tuple[str, ...]]]
    is_apart: bool = False
    notes: tuple[Note, ...] = ()

    @property
    def stats(self) -> SamplerStats:
        """What sampling cost."""
        solution = self.sampled.solution
        return SamplerStats(
            self.sampled.num_steps,
            solution.rounds,
            solution.nfe,
            tuple(solution.fronts),
            solution.converged_by,
            solution.skipped,
            solution.blocks,
            solution.blocks_full,
        )

    def decode(self) -> Decoded:
        """Return the frames."""
        return self.decode_latents(self.sampled.latents, False)[0]

    def decode_saving_memory(self) -> tuple[Decoded, tuple[str, ...]]:
        """Return the frames, and what the VAE had to do for them: tiling, slicing, or nothing if it can do no more."""
        return self.decode_latents(self.sampled.latents, True)

    def save_latents(self, path: Path) -> None:
        """Write the final latents as safetensors.

        Raises:
            OSError: the file cannot be written.
        """
        from safetensors.torch import save

        path.write_bytes(save({LATENTS: self.sampled.latents.detach().cpu().contiguous()}))


@dataclass(frozen=True)
class SavedSample:
    """An item whose latents were saved.

    Attributes:
        stats: what sampling cost.
        path: the file of its latents.
        latents: what is in it.
        decode_latents: decodes them; is told whether to save memory.
        is_apart: no: its pipeline is not in use beside it.
        notes: none: its record has them.
    """

    stats: SamplerStats
    path: Path
    latents: Tensor
    decode_latents: Callable[[Tensor, bool], tuple[Decoded, tuple[str, ...]]]
    is_apart: bool = False
    notes: tuple[Note, ...] = ()

    def decode(self) -> Decoded:
        """Return the frames."""
        return self.decode_latents(self.latents, False)[0]

    def decode_saving_memory(self) -> tuple[Decoded, tuple[str, ...]]:
        """Return the frames, and what the VAE had to do for them."""
        return self.decode_latents(self.latents, True)

    def save_latents(self, path: Path) -> None:
        """Write the latents once more, byte for byte.

        Raises:
            OSError: the file cannot be read or written.
        """
        shutil.copyfile(self.path, path)


def read_latents(path: Path) -> Tensor:
    """Read final latents.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no latents.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(path.read_bytes())[LATENTS]
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path}: not a file of latents: {error}") from error
