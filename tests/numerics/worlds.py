"""Closed-form problems of `genrun.solvers.analytic`, evaluated by something that remembers where it was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from genrun.solvers import Point, Problem
from genrun.solvers.analytic import (
    Denoiser,
    bifurcation,
    diffusion,
    flow,
    linear,
    mixture,
    output_at,
    shifted_sigmas,
    stiff,
)

__all__ = [
    "PROBLEMS",
    "Denoiser",
    "Recorder",
    "bifurcation",
    "diffusion",
    "flow",
    "linear",
    "mixture",
    "shifted_sigmas",
    "stiff",
]

PROBLEMS = {"flow": flow, "diffusion": diffusion}


@dataclass
class Recorder:
    """Evaluates points with a denoiser, and remembers where it was asked."""

    problem: Problem
    denoise: Denoiser
    rounds: list[list[Point]] = field(default_factory=list)

    def __call__(self, points: Sequence[Point]) -> list[Tensor]:
        """The model outputs at the points."""
        self.rounds.append(list(points))
        return [self.output(point) for point in points]

    def output(self, point: Point) -> Tensor:
        """The model output at one point."""
        return output_at(self.problem, self.denoise, point)

    @property
    def indices(self) -> list[list[int]]:
        """Steps asked for, by round."""
        return [[point.index for point in points] for points in self.rounds]
