"""Closed-form denoisers: problems whose trajectories are known, smooth or stiff, with no model to train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from genrun.solvers import FlowProblem, Point, Problem, VPProblem

Denoiser = Callable[[Tensor, float, float], Tensor]
"""E[x0 | x] at x = alpha x0 + sigma noise."""


def shifted_sigmas(num_steps: int, shift: float = 3.0) -> list[float]:
    """The noise levels of a flow-matching grid, 1 to 0."""
    return [shift * s / (1 + (shift - 1) * s) for s in torch.linspace(1, 0, num_steps + 1).tolist()]


def flow(num_steps: int = 20, seed: int = 0, size: int = 16) -> FlowProblem:
    """Euler flow matching."""
    return FlowProblem(shifted_sigmas(num_steps), torch.randn(size, generator=torch.Generator().manual_seed(seed)))


def diffusion(num_steps: int = 20, seed: int = 0, size: int = 16) -> VPProblem:
    """DDIM on a variance-preserving grid."""
    sigmas = [min(s, 0.9999) for s in shifted_sigmas(num_steps)]
    x_start = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    return VPProblem([(1 - s * s) ** 0.5 for s in sigmas], sigmas, x_start, "v_prediction")


PROBLEMS = {"flow": flow, "diffusion": diffusion}


def mixture(size: int = 16, modes: int = 5, spread: float = 0.2, guidance: float = 3.0, seed: int = 7) -> Denoiser:
    """Gaussian mixture, guided towards its first mode: w * E[x0 | x, mode 0] + (1 - w) * E[x0 | x]."""
    centres = 1.5 * torch.randn(modes, size, generator=torch.Generator().manual_seed(seed))

    def denoise(x: Tensor, alpha: float, sigma: float) -> Tensor:
        variance = sigma**2 + (alpha * spread) ** 2
        weights = (-(x - alpha * centres).square().sum(-1) / (2 * variance)).softmax(0)
        means = centres + alpha * spread**2 / variance * (x - alpha * centres)
        return guidance * means[0] + (1 - guidance) * (weights[:, None] * means).sum(0)

    return denoise


def bifurcation(size: int = 16) -> Denoiser:
    """Two narrow modes at +-1: near the boundary, the sign of the state's mean decides all."""

    def denoise(x: Tensor, alpha: float, sigma: float) -> Tensor:
        return torch.tanh(alpha * x.mean() * size / (sigma**2 + 0.01)) * torch.ones_like(x)

    return denoise


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
        alpha, sigma = self.problem.alpha(point.index), self.problem.sigma(point.index)
        return self.problem.from_x0(point.index, point.x, self.denoise(point.x, alpha, sigma))

    @property
    def indices(self) -> list[list[int]]:
        """Steps asked for, by round."""
        return [[point.index for point in points] for points in self.rounds]
