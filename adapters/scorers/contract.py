"""The contract of metrics: what they are given, what they return, and how they say that they cannot measure.

A `Metric` gives a number for each sample. A `SetMetric` gives numbers for a whole set of samples, such as a Fréchet
distance. Both are frozen dataclasses; one whose field `options` is a frozen dataclass can be configured in a job:
`score: [{kind: clip_score, checkpoint: openai/clip-vit-base-patch32}]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from genrun.adapters.shapes import LatentState, RgbFrames


ROUNDED_PX = 16
"""Pipelines round sides to the patches of their latents: by less than this."""

ROUNDED_FRAMES = 8
"""And numbers of frames to whole latent frames: by less than this."""


class UnscoredError(Exception):
    """A metric that cannot be measured on a sample; the message is the reason that reports show."""


@dataclass(frozen=True)
class Sample:
    """The files of an item, read on first use and kept until the sample is dropped.

    Attributes:
        caption: the prompt.
        adapter: registry name of the model's adapter.
        media: the media file, or None when there is none.
        latents: the file of final latents (safetensors), or None when none were saved.
        num_frames: how many frames were asked for, or None for images: tells the layout of the latents.
        size: (height, width) that was asked for, or None when that is not known.
        name: the item's id.
        seed: of the initial noise.
        inputs: field of the prompt -> the pictures and clips that it was made from, each named by the hash of its bytes.
    """

    caption: str
    adapter: str = ""
    media: Path | None = None
    latents: Path | None = None
    num_frames: int | None = None
    size: tuple[int, int] | None = None
    name: str = ""
    seed: int = 0
    inputs: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)

    def input_frames(self, name: str) -> list[RgbFrames]:
        """Return the frames of each input of a field, uint8 of shape (T, H, W, 3).

        Raises:
            UnscoredError: one is lost, or not what it was.
        """
        import hashlib

        import numpy as np

        from genrun.adapters.input_files import InputError, decode, read

        found = []
        for path in self.inputs[name]:
            try:
                data = read(path)
                if hashlib.sha256(data).hexdigest() != path.stem:
                    raise InputError("is not the file that was kept")
                found.append(np.stack([np.asarray(frame) for frame in decode(data)]))
            except InputError as error:
                raise UnscoredError(f"its {name}: {path.name}: {error}") from error
        return found

    @cached_property
    def frames(self) -> RgbFrames:
        """The decoded frames, uint8 of shape (T, H, W, 3); T = 1 for an image.

        Raises:
            UnscoredError: there is no media file, it cannot be decoded, or it is not of the size that was asked for.
        """
        if self.media is None:
            raise UnscoredError("no media file")
        if not self.media.is_file():
            raise UnscoredError(f"media file is missing: {self.media.name}")
        from genrun.adapters.media import read_frames

        try:
            frames = read_frames(self.media)
        except Exception as error:
            why = str(error).removeprefix(f"{self.media}: ")
            raise UnscoredError(f"media file cannot be decoded: {self.media.name}: {why}") from error
        self._check_shape(frames.shape)
        return frames

    @cached_property
    def state(self) -> LatentState:
        """The final latents, float32, in the pipeline's own layout.

        Raises:
            UnscoredError: no latents were saved, or the file does not hold exactly one finite tensor.
        """
        if self.latents is None:
            raise UnscoredError("no latents were saved; set output.save_latents: true in the job")
        if not self.latents.is_file():
            raise UnscoredError(f"latents file is missing: {self.latents.name}")
        return _read_latents(self.latents)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        """Refuse frames that are not what was asked for, beyond what pipelines round to their latent grid."""
        frames, *sides = shape[:3]
        name = self.media.name if self.media else ""
        if self.num_frames is not None and (
            abs(frames - self.num_frames) >= ROUNDED_FRAMES or (frames == 1) != (self.num_frames == 1)
        ):
            raise UnscoredError(f"{name} has {_count(frames, 'frame')}, {self.num_frames} were asked for")
        if self.size is not None and any(abs(a - b) >= ROUNDED_PX for a, b in zip(sides, self.size, strict=True)):
            raise UnscoredError(f"{name} is {sides[1]}x{sides[0]} pixels, {self.size[1]}x{self.size[0]} were asked for")


@runtime_checkable
class Described(Protocol):
    """The description of a metric, known without measuring."""

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
        """The definition of the number in one sentence, for the report."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Direction."""
        ...

    # Beside these a metric may have `bounds`, the least and the most that its number can be, which gates are checked by,
    # and `inputs`, fields of a prompt of which it needs one, which prompts are checked by.

    @property
    def style(self) -> Literal["number", "decibel", "share"]:
        """The style of printing; a share is in 0..1 and printed in per cent."""
        ...

    @property
    def reads(self) -> Literal["media", "latents"]:
        """The sample's file that it reads, whose hash is, with the options, the key of the cache."""
        ...

    @property
    def compares(self) -> bool:
        """True when it needs the sequential sample of the same prompt and seed."""
        ...


class Metric(Described, Protocol):
    """A number measured on one sample, perhaps against its reference; a module's `METRIC` is one."""

    def measure(self, sample: Sample, reference: Sample | None, /) -> Mapping[str, float]:
        """Return the number under the metric's name, and any parts as `name.part`.

        Args:
            sample: what to measure.
            reference: the sequential sample of the same prompt and seed; never None when `compares`.

        Raises:
            UnscoredError: it cannot be measured on this sample.
        """
        ...


@dataclass(frozen=True)
class SetPart:
    """A number of a set, and the samples' numbers that it is made of.

    Attributes:
        name: of the number: one of the parts asked for.
        value: None when it could not be measured.
        reason: why not.
        items: by sample name, the number of a single sample, or the reason why there is none; may be empty.
    """

    name: str
    value: float | None
    reason: str | None = None
    items: Mapping[str, float | str] = field(default_factory=dict)


@runtime_checkable
class SetMetric(Described, Protocol):
    """Numbers measured on a whole set of samples: those of one cell of a job's matrix."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the numbers, `name` or `name.part`, each measured and cached by itself."""
        ...

    def measure_set(self, samples: Sequence[Sample], parts: Sequence[str], workspace: Path, /) -> Iterator[SetPart]:
        """Measure parts, and give each as soon as it is known.

        Args:
            samples: all that have a media file as it was made.
            parts: some of `parts`.
            workspace: a folder of this metric's own, for what it wants to keep.

        Raises:
            UnscoredError: nothing more can be measured.
        """
        ...

    def combine(self, values: Mapping[str, float], /) -> Mapping[str, float]:
        """Return numbers that follow from the parts' values, such as a weighted total; {} when too few are there."""
        ...


def needs_of(metric: Described) -> str:
    """Return what a metric needs besides genrun, or "": those that need nothing are measured when a job names none."""
    return str(getattr(metric, "needs", ""))


def options_of(metric: Described) -> Any:
    """Return the options of a metric, a frozen dataclass, or None when it has none."""
    return getattr(metric, "options", None)


def settings_of(metric: Described) -> Mapping[str, Any]:
    """Return what decides, besides files and version, a metric's values, as plain data: part of the key of the cache.

    A metric may say so itself (`settings`, a mapping); else it is all of its options.
    """
    own = getattr(metric, "settings", None)
    if own is not None:
        return own
    options = options_of(metric)
    return {} if options is None else {name: _plain(value) for name, value in vars(options).items()}


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _read_latents(path: Path) -> LatentState:
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
