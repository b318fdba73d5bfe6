"""Model adapters: what is particular to one model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

Frames = tuple[tuple[int, int], ...]
"""Numbers of frames that can be had: stride * n + offset, for any of these."""

NUMBER_FIELDS = ("guidance_scale", "height", "width", "num_frames")


@dataclass(frozen=True)
class Adapter:
    """A model that a job can name.

    Attributes:
        name: what a job calls it.
        title: one line for `genrun models`.
        kind: what it makes; None where only the loaded pipeline can tell.
        pipeline: diffusers class name, or None for whatever the checkpoint says.
        checkpoint: default hub id or packaged folder; None where the job must give one.
        dtype: default dtype of the weights.
        fps: frames per second of the videos it makes.
        knows_fps: whether that is the model's own, not a guess.
        defaults: sampling defaults: steps, guidance_scale, height, width, num_frames, scheduler.
        variants: hub id -> the defaults in which that checkpoint differs.
        multiples: what height and width must be multiples of.
        largest: the most that either may be, in pixels; None where there is no limit.
        frames: num_frames must be frames[0] * n + frames[1].
        also_frames: or a number of one of these pairs.
        lacks: sampling fields that its pipeline has no argument for.
        needs_true_cfg: its guidance is embedded, so that negative prompts act only with `true_cfg_scale` above 1.
        call: further arguments of every pipeline call.
        captions: the world its prompts come from, for a checker; None where there is none.
        loads: class of the pipeline that a checkpoint has, where `pipeline` leaves it open and it is known.
        marks: entries of a checkpoint's model_index.json, or of its denoiser's configuration, and whether this model's
            are set; they tell models of one pipeline apart.
        forms: the same model in other pipelines or sizes, which a checkpoint's hub id tells, or its class and marks.
        is_chosen: whether a job that names a checkpoint of this model, and no adapter, means this one.
        sound: whether it makes sound beside the pictures.
        billions: component -> parameters in billions, of those that decide how much memory it needs.
    """

    name: str
    title: str
    kind: Literal["video", "image"] | None = None
    pipeline: str | None = None
    checkpoint: str | Path | None = None
    dtype: str = "bfloat16"
    fps: int = 8
    knows_fps: bool = True
    defaults: Mapping[str, Any] = field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    multiples: int = 8
    largest: int | None = None
    frames: tuple[int, int] = (1, 0)
    also_frames: Frames = ()
    lacks: tuple[str, ...] = ()
    needs_true_cfg: bool = False
    call: Mapping[str, Any] = field(default_factory=dict)
    captions: str | None = None
    loads: str | None = None
    marks: Mapping[str, bool] = field(default_factory=dict)
    forms: tuple[Adapter, ...] = ()
    is_chosen: bool = False
    sound: bool = False
    billions: Mapping[str, float] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The name in messages: its own, or the class of the pipeline that it stands for."""
        return self.loads or self.name

    def for_checkpoint(self, name: str) -> Adapter:
        """Return this adapter in the form, and with the defaults, of a checkpoint, named by its hub id."""
        form = next((form for form in self.forms if form.is_of(name)), self)
        forms = self.forms if form is self and not self.is_of(name) else ()
        return replace(form, defaults={**form.defaults, **form.variants.get(name, {})}, variants={}, forms=forms)

    def is_of(self, hub_id: str) -> bool:
        """Return whether a hub id is one of this model's checkpoints, in this form."""
        return hub_id == self.checkpoint or hub_id in self.variants

    def validate(self, sampling: Mapping[str, Any]) -> list[tuple[str, str]]:
        """List problems of a sampling section that need no weights: (field, message with the nearest possible value)."""
        return [*self._sizes(sampling), *self._frame_count(sampling), *self._useless(sampling)]

    def _sizes(self, sampling: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for side in ("height", "width"):
            value = sampling.get(side)
            if value and value % self.multiples and side not in self.lacks:
                near = max(round(value / self.multiples), 1) * self.multiples
                yield side, f"{self.label} needs a multiple of {self.multiples}; the nearest is {near}"
            elif value and self.largest and value > self.largest:
                yield side, f"{self.label} makes at most {self.largest} pixels"

    def _frame_count(self, sampling: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        frames = sampling.get("num_frames")
        if frames and self.kind == "image":
            yield "num_frames", f"{self.label} makes images: leave num_frames out"
        elif frames and not any(frames >= offset and (frames - offset) % stride == 0 for stride, offset in self.rules):
            near = self.nearest_frames(frames)
            yield "num_frames", f"{self.label} needs {self.frame_forms} frames; the nearest is {near}"

    @property
    def rules(self) -> Frames:
        """All pairs, one of which a number of frames must fit."""
        return (self.frames, *self.also_frames)

    @property
    def frame_forms(self) -> str:
        """The numbers of frames that can be had: "4 n + 1"."""
        return " or ".join(f"{stride} n + {offset}" if offset else f"{stride} n" for stride, offset in self.rules)

    def nearest_frames(self, frames: int) -> int:
        """Return the number nearest to `frames` that can be had."""
        near = (
            n * stride + offset
            for stride, offset in self.rules
            for n in ((frames - offset) // stride, (frames - offset) // stride + 1)
        )
        return min((number for number in near if number > 0), key=lambda number: (abs(number - frames), -number))

    def _useless(self, sampling: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        for name in self.lacks:
            if sampling.get(name) is not None:
                yield name, f"{self.label} knows no {name}: leave it out"
        scale = (sampling.get("options") or {}).get("true_cfg_scale", 1)
        if self.needs_true_cfg and sampling.get("negative_prompt") and not _is_above_one(scale):
            yield "negative_prompt", f"{self.label} ignores it without options: {{true_cfg_scale: 4.0}}, or any above 1"

    def resolve(self, sampling: Mapping[str, Any]) -> dict[str, Any]:
        """Fill the fields that a job's sampling section leaves out with this model's defaults."""
        return {**self.defaults, **{key: value for key, value in sampling.items() if value is not None}}


def _is_above_one(scale: Any) -> bool:
    return isinstance(scale, int | float) and scale > 1
