"""Registries of made-up models and solvers, so that tests of job files depend on no real one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from genrun.runner.job.options import Registries


@dataclass(frozen=True)
class Sequential:
    """One step a round."""


@dataclass(frozen=True)
class Window:
    """A window that slides.

    Attributes:
        workers: K, states evaluated a round.
        tolerance: when a state is settled; 0 is
            exact.
        mode: exact or skip.
        window: states kept.
    """

    workers: int = 8
    tolerance: float = 0.05
    mode: Literal["exact", "skip"] = "exact"
    window: int | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError("workers: must be at least 1")


@dataclass(frozen=True)
class FakeAdapter:
    """What a job file needs to know of a model."""

    name: str
    checkpoint: str | Path | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    call: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    pipeline: str | None = None

    def for_checkpoint(self, name: str) -> FakeAdapter:
        """Itself: every checkpoint has the same defaults."""
        return self

    def validate(self, sampling: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Refuse heights that are not a multiple of 8."""
        height = sampling.get("height", 8)
        return [("height", f"{self.name} needs a multiple of 8")] if height % 8 else []


@dataclass(frozen=True)
class FakeMetric:
    """What a job file needs to know of a metric."""

    higher_is_better: bool
    compares: bool = True
    bounds: tuple[float, float] = (0.0, 100.0)


@dataclass(frozen=True)
class FakeRegistry:
    """Things by name."""

    things: Mapping[str, Any]

    def names(self) -> Sequence[str]:
        """Every name."""
        return tuple(self.things)

    def get(self, name: str) -> Any:
        """The thing."""
        return self.things[name]


def fake_registries() -> Registries:
    """A video model on a hub id, an image model, the adapter `auto`, and two solvers."""
    video = FakeAdapter("tiny-video", "org/tiny-video", {"steps": 10, "guidance_scale": 5, "num_frames": 9, "eta": 0.0})
    image = FakeAdapter("tiny-image", "org/tiny-image", {"steps": 4})
    return Registries(
        adapters=FakeRegistry({"tiny-video": video, "tiny-image": image, "auto": FakeAdapter("auto")}),
        solvers=FakeRegistry({"sequential": Sequential, "window": Window}),
        launchers=FakeRegistry({"inline": None, "torchrun": None, "slurm": None}),
        metrics=FakeRegistry({"psnr": FakeMetric(True), "ssim": FakeMetric(True)}),
    )
