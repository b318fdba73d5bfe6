"""Closed-form denoisers: trajectories that are smooth, stiff or known exactly, with no model to train.

A denoiser says E[x0 | x] at x = alpha x0 + sigma noise. `WORLDS` names four, each with the problem that it is meant for:

    world = WORLDS["mixture"]
    problem = world.problem(50, seed=0)
    solution = solve(problem, evaluator(problem, world.denoiser()), solver="ropa", workers=8)

torch is imported where tensors are made, not when this module is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from genrun.solvers.contract import Evaluate, Point, Problem
from genrun.solvers.problems import FlowProblem, VPProblem

if TYPE_CHECKING:
    from genrun.solvers.shapes import Elements, Modes, Output, State

Denoiser = Callable[["State", float, float], "State"]
"""E[x0 | x] from (x, alpha, sigma), for x = alpha x0 + sigma noise."""

MOST_SIGMA = 0.9999
"""Sigma at which a variance-preserving grid starts: at 1 its state would carry no information about x0."""


@runtime_checkable
class MakeProblem(Protocol):
    """A family of problems: one per seed."""

    def __call__(self, num_steps: int = 20, seed: int = 0, size: int = 16) -> Problem:
        """Make a problem of N steps whose x_start has `size` elements drawn from `seed`."""
        ...


@dataclass(frozen=True)
class World:
    """A denoiser and the problems that it is meant for.

    Attributes:
        title: one line.
        problem: makes a problem from (num_steps, seed, size).
        denoiser: makes the denoiser for states of 16 elements, or of the size given.
    """

    title: str
    problem: MakeProblem
    denoiser: Callable[..., Denoiser]


def evaluator(problem: Problem, denoise: Denoiser) -> Evaluate:
    """Return the function that `solve` calls once a round, of a model that predicts x0 as `denoise` does."""

    def evaluate(points: Sequence[Point]) -> list[Output]:
        return [output_at(problem, denoise, point) for point in points]

    return evaluate


def output_at(problem: Problem, denoise: Denoiser, point: Point) -> Output:
    """Return the model output at one point."""
    x0 = denoise(point.x, problem.alpha(point.index), problem.sigma(point.index))
    return problem.from_x0(point.index, point.x, x0)


def shifted_sigmas(num_steps: int, shift: float = 3.0) -> list[float]:
    """Return the noise levels of a flow-matching grid, 1 to 0: s' = shift s / (1 + (shift - 1) s)."""
    levels = (1 - i / num_steps for i in range(num_steps + 1))
    return [shift * s / (1 + (shift - 1) * s) for s in levels]


def flow(num_steps: int = 20, seed: int = 0, size: int = 16) -> FlowProblem:
    """Make a problem of Euler flow matching, from a normal x_start of shape (size,)."""
    return FlowProblem(shifted_sigmas(num_steps), noise(seed, size))


def diffusion(num_steps: int = 20, seed: int = 0, size: int = 16) -> VPProblem:
    """Make a problem of DDIM on a variance-preserving grid, v-prediction, from a normal x_start of shape (size,)."""
    sigmas = [min(s, MOST_SIGMA) for s in shifted_sigmas(num_steps)]
    return VPProblem([math.sqrt(1 - s * s) for s in sigmas], sigmas, noise(seed, size), "v_prediction")


def noise(seed: int, *shape: int) -> State:
    """Draw normal float32 noise that depends on the seed alone."""
    import torch

    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mixture(size: int = 16, modes: int = 5, spread: float = 0.2, guidance: float = 3.0, seed: int = 7) -> Denoiser:
    """Make the denoiser of a Gaussian mixture, guided to its first mode: w E[x0 | x, mode 0] + (1 - w) E[x0 | x].

    Args:
        size: elements of a state.
        modes: Gaussians, with normal centres of standard deviation 1.5.
        spread: standard deviation of each.
        guidance: w.
        seed: of the centres.
    """
    centres: Modes = 1.5 * noise(seed, modes, size)

    def denoise(x: Elements, alpha: float, sigma: float) -> Elements:
        variance = sigma**2 + (alpha * spread) ** 2
        weights = (-(x - alpha * centres).square().sum(-1) / (2 * variance)).softmax(0)
        means = centres + alpha * spread**2 / variance * (x - alpha * centres)
        return guidance * means[0] + (1 - guidance) * (weights[:, None] * means).sum(0)

    return denoise


def bifurcation(size: int = 16) -> Denoiser:
    """Make the denoiser of two narrow modes at +-(1, -1, 1, -1, ...).

    Near the boundary between them, the sign of one projection decides all.
    """
    mode = alternating(size)

    def denoise(x: Elements, alpha: float, sigma: float) -> Elements:
        strength = alpha * (x * mode).sum() / (sigma**2 + 0.01)
        return strength.tanh() * mode

    return denoise


def alternating(size: int) -> Elements:
    """Return (1, -1, 1, -1, ...)."""
    import torch

    return 1.0 - 2.0 * (torch.arange(size) % 2)


@dataclass(frozen=True)
class Linear:
    """The denoiser of a Gaussian N(mean, diag(scale^2)): linear in x, and its exact flow is known.

    Attributes:
        mean: (size,).
        scale: (size,), standard deviations.
    """

    mean: Elements
    scale: Elements

    def __call__(self, x: Elements, alpha: float, sigma: float) -> Elements:
        """Return E[x0 | x] = mean + alpha scale^2 / (alpha^2 scale^2 + sigma^2) (x - alpha mean)."""
        gain = alpha * self.scale.square() / self._variance(alpha, sigma)
        return self.mean + gain * (x - alpha * self.mean)

    def exact(self, x: Elements, start: tuple[float, float], end: tuple[float, float]) -> Elements:
        """Follow the probability flow from `x` at levels (alpha, sigma) = `start` to `end`: the limit of N -> infinity.

        Every quantile keeps its place: (x - alpha mean) scales with the marginal's standard deviation.
        """
        ratio = (self._variance(*end) / self._variance(*start)).sqrt()
        return end[0] * self.mean + (x - start[0] * self.mean) * ratio

    def _variance(self, alpha: float, sigma: float) -> Elements:
        return (alpha * self.scale).square() + sigma**2


def linear(size: int = 16, seed: int = 11) -> Linear:
    """Make a Gaussian whose standard deviations run from 0.05 to 1.5, evenly on a log scale."""
    import torch

    return Linear(noise(seed, size), torch.logspace(math.log10(0.05), math.log10(1.5), size))


def stiff(size: int = 16, guidance: float = 7.5, seed: int = 13) -> Denoiser:
    """Make the denoiser of a Gaussian that is guided to a narrower one: stiff where the noise lies between their widths.

    There the prediction with the condition hardly follows the state and that without it does, so that w E[x0 | x, narrow] +
    (1 - w) E[x0 | x] moves against the state by w - 1 times as much. With widths of 0.02 and 0.1 to 0.2 that is at the small
    noise levels of the last steps, where a step of a usual grid weighs it with about 1.

    Args:
        size: elements of a state.
        guidance: w.
        seed: of the centres.
    """
    import torch

    centre = 0.1 * noise(seed, size)
    narrow = Linear(centre, torch.full((size,), 0.02))
    wide = Linear(torch.zeros(size), torch.logspace(math.log10(0.1), math.log10(0.2), size))

    def denoise(x: Elements, alpha: float, sigma: float) -> Elements:
        return guidance * narrow(x, alpha, sigma) + (1 - guidance) * wide(x, alpha, sigma)

    return denoise


WORLDS: Mapping[str, World] = {
    "mixture": World("five Gaussians, guidance 3, Euler flow matching", flow, mixture),
    "bifurcation": World("two narrow modes, Euler flow matching", flow, bifurcation),
    "stiff": World("a Gaussian guided to a narrow one, guidance 7.5, stiff at small noise levels", flow, stiff),
    "linear": World("one Gaussian, whose flow is known in closed form, DDIM", diffusion, linear),
}
"""Closed-form problems by name."""
