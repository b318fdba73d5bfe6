"""What a model adapter says: only what is particular to its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

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
        defaults: sampling defaults: steps, guidance_scale, height, width, num_frames.
        multiples: what height and width must be multiples of.
        frames: num_frames must be frames[0] * n + frames[1].
        call: further arguments of every pipeline call.
        captions: the world its prompts come from, for a checker; None where there is none.
    """

    name: str
    title: str
    kind: Literal["video", "image"] | None = None
    pipeline: str | None = None
    checkpoint: str | Path | None = None
    dtype: str = "bfloat16"
    fps: int = 8
    defaults: Mapping[str, Any] = field(default_factory=dict)
    multiples: int = 8
    frames: tuple[int, int] = (1, 0)
    call: Mapping[str, Any] = field(default_factory=dict)
    captions: str | None = None

    def validate(self, sampling: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Problems of a sampling section that need no weights: (field, message with the nearest possible value)."""
        problems = []
        for side in ("height", "width"):
            value = sampling.get(side)
            if value and value % self.multiples:
                near = max(round(value / self.multiples), 1) * self.multiples
                problems.append((side, f"{self.name} needs a multiple of {self.multiples}; the nearest is {near}"))
        frames, (stride, offset) = sampling.get("num_frames"), self.frames
        if frames and (frames - offset) % stride:
            near = max(round((frames - offset) / stride), 0) * stride + offset
            problems.append(("num_frames", f"{self.name} needs {stride} n + {offset} frames; the nearest is {near}"))
        if frames and self.kind == "image":
            problems.append(("num_frames", f"{self.name} makes images: leave num_frames out"))
        return problems

    def resolve(self, sampling: Mapping[str, Any]) -> dict[str, Any]:
        """The sampling section with this model's defaults filled in, where the job leaves a field out."""
        return {**self.defaults, **{key: value for key, value in sampling.items() if value is not None}}
