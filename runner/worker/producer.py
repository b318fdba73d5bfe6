"""The interface between the loop and what makes pictures, and the samples of diffusers pipelines.

A producer samples items; a sample is an item that is sampled and not decoded yet: fresh from a pipeline, or saved latents.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from genrun.runner.store.records import Note, SamplerStats

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from genrun.adapters.pipeline.pictures import Pictures
    from genrun.adapters.sampling.generate import Sampled
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.worker.rank import MemoryUsage

LATENTS = "latents"
"""Name of the tensor in a latents file."""

OTHER = "others."
"""Beginning of the names of those that were sampled beside it, numbered."""


class SampledItem(Protocol):
    """A sampled item that is not decoded yet."""

    @property
    def stats(self) -> SamplerStats:
        """The cost of sampling."""
        ...

    @property
    def can_overlap(self) -> bool:
        """True when it may be decoded in another thread while the next item is sampled."""
        ...

    @property
    def notes(self) -> tuple[Note, ...]:
        """Notes on the item, as far as sampling shows them."""
        ...

    def decode(self) -> Any:
        """Return the frames. Called on the leading rank only."""
        ...

    def decode_saving_memory(self) -> tuple[Any, tuple[str, ...]]:
        """Return the frames, decoded in the least memory, and what that took: tiling, slicing."""
        ...

    def save_latents(self, path: Path) -> None:
        """Write the final latents as safetensors."""
        ...


class Producer(Protocol):
    """Turns items into pictures; kept for the life of a worker, so that it can keep its model."""

    @property
    def device(self) -> str:
        """Name of the device, for records."""
        ...

    @property
    def memory(self) -> MemoryUsage:
        """Memory of this rank."""
        ...

    @property
    def evaluations(self) -> int:
        """Model evaluations that this rank has made of the item in work, one after the other."""
        ...

    def begin(self, folder: RunFolder, items: Sequence[WorkItem]) -> None:
        """Prepare for a run and its items, before the first of them."""
        ...

    def is_ready(self, item: WorkItem) -> bool:
        """Return True when there is nothing to load for the item."""
        ...

    def prepare(self, item: WorkItem) -> None:
        """Load what the item needs, so that its time does not count as the item's."""
        ...

    def suffix(self, item: WorkItem, frames: Any) -> str:
        """Return the suffix of the item's media file, with its dot."""
        ...

    def notes(self, item: WorkItem, frames: Any) -> tuple[Note, ...]:
        """Return notes on the item, as far as its frames show them."""
        ...

    def sound(self, frames: Any) -> dict[str, int]:
        """Return the rate and the channels of the sound that is written with frames; {} for none."""
        ...

    def sample(self, item: WorkItem, on_round: Callable[[int, int], None]) -> SampledItem:
        """Sample an item. `on_round` is told the front and the number of steps."""
        ...

    def restore(self, item: WorkItem, latents: Path, stats: SamplerStats) -> SampledItem:
        """Return an item as it was sampled, from its saved latents. Called on the leading rank only."""
        ...

    def write(self, path: Path, frames: Any, metadata: dict[str, Any]) -> None:
        """Write frames as a media file with its metadata embedded."""
        ...


@dataclass(frozen=True)
class Decoded:
    """Pictures, and the pace at which they are shown.

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
        can_overlap: whether that may be done in another thread while the next item is sampled.
        notes: as far as sampling shows them.
    """

    sampled: Sampled
    decode_latents: Callable[[Tensor, bool], tuple[Decoded, tuple[str, ...]]]
    can_overlap: bool = False
    notes: tuple[Note, ...] = ()

    @property
    def stats(self) -> SamplerStats:
        """The cost of sampling."""
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

        named = {LATENTS: self.sampled.latents, **{f"{OTHER}{i}": one for i, one in enumerate(self.sampled.others)}}
        path.write_bytes(save({name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}))


@dataclass(frozen=True)
class SavedSample:
    """An item whose latents were saved.

    Attributes:
        stats: the cost of sampling.
        path: the file of its latents.
        latents: what is in it.
        decode_latents: decodes them; is told whether to save memory.
        can_overlap: no: its pipeline is not in use beside it.
        notes: none: its record has them already.
    """

    stats: SamplerStats
    path: Path
    latents: Tensor
    decode_latents: Callable[[Tensor, bool], tuple[Decoded, tuple[str, ...]]]
    can_overlap: bool = False
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
    return _read(path)[LATENTS]


def read_others(path: Path) -> tuple[Tensor, ...]:
    """Read what was sampled beside final latents, from the same file. Raises as `read_latents`."""
    found = _read(path)
    names = (f"{OTHER}{number}" for number in range(len(found)))
    return tuple(found[name] for name in names if name in found)


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = load(path.read_bytes())
        return {LATENTS: found[LATENTS], **found}
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path}: not a file of latents: {error}") from error
