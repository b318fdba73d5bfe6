"""What a metric is, what it may look at, and how it says that it cannot measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


class UnscoredError(Exception):
    """A metric that cannot be measured on a sample; the message is the reason that reports show."""


@dataclass(frozen=True)
class Sample:
    """One item's files, read on first use and kept until the sample is dropped.

    Attributes:
        caption: the prompt.
        adapter: registry name of the model's adapter.
        media: the media file, or None when there is none.
        latents: the file of final latents (safetensors), or None when none were saved.
        num_frames: how many frames were asked for, or None for images: tells the layout of the latents.
    """

    caption: str
    adapter: str = ""
    media: Path | None = None
    latents: Path | None = None
    num_frames: int | None = None

    @cached_property
    def frames(self) -> NDArray:
        """The decoded frames, uint8 of shape (T, H, W, 3); T = 1 for an image.

        Raises:
            UnscoredError: there is no media file, or it cannot be decoded.
        """
        if self.media is None:
            raise UnscoredError("no media file")
        if not self.media.is_file():
            raise UnscoredError(f"media file is missing: {self.media.name}")
        from genrun.adapters.media import read_frames

        try:
            return read_frames(self.media)
        except Exception as error:
            raise UnscoredError(f"media file cannot be decoded: {error}") from error

    @cached_property
    def state(self) -> Tensor:
        """The final latents, float32, in the pipeline's own layout.

        Raises:
            UnscoredError: no latents were saved, or the file does not hold exactly one finite tensor.
        """
        if self.latents is None:
            raise UnscoredError("no latents were saved; set output.save_latents: true in the job")
        if not self.latents.is_file():
            raise UnscoredError(f"latents file is missing: {self.latents.name}")
        return _read_latents(self.latents)


class Metric(Protocol):
    """A number measured on one sample, perhaps against its reference; a module's `METRIC` is one."""

    @property
    def name(self) -> str:
        """Registry name, and the name of the main number."""
        ...

    @property
    def version(self) -> int:
        """Raised whenever the same files would give another number; older scores are then measured again."""
        ...

    @property
    def title(self) -> str:
        """Heading of a column."""
        ...

    @property
    def definition(self) -> str:
        """One sentence for the report: what the number is."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Direction."""
        ...

    @property
    def style(self) -> Literal["number", "decibel", "share"]:
        """How to print it; a share is in 0..1 and printed in per cent."""
        ...

    @property
    def reads(self) -> Literal["media", "latents"]:
        """Which of a sample's files it reads: their hashes are the key of the cache."""
        ...

    @property
    def compares(self) -> bool:
        """Whether it needs the sequential sample of the same prompt and seed."""
        ...

    def measure(self, sample: Sample, reference: Sample | None, /) -> Mapping[str, float]:
        """Return the number under the metric's name, and any parts as `name.part`.

        Args:
            sample: what to measure.
            reference: the sequential sample of the same prompt and seed; never None when `compares`.

        Raises:
            UnscoredError: it cannot be measured on this sample.
        """
        ...


def _read_latents(path: Path) -> Tensor:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UnscoredError(f"latents file cannot be read: {error}") from error
    if len(tensors) != 1:
        raise UnscoredError(f"latents file holds {len(tensors)} tensors, not one: {path.name}")
    state = next(iter(tensors.values())).float()
    if not state.isfinite().all():
        raise UnscoredError("latents are not finite")
    return state
