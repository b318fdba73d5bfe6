"""Problems on plain tensors, Euler flow matching and DDIM, for a denoiser of one's own; and the prediction types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from genrun.solvers.contract import History

if TYPE_CHECKING:
    from genrun.solvers.shapes import Output, State

FLOAT32_RESOLUTION = 2.0**-23
"""Relative distance of neighbouring float32 numbers."""


class _OneStepProblem:
    """What the problems here have in common: their steps add no noise and remember nothing."""

    sigmas: Sequence[float]

    @property
    def num_steps(self) -> int:
        """N."""
        return len(self.sigmas) - 1

    def sigma(self, index: int) -> float:
        """Return the noise level."""
        return self.sigmas[index]

    @property
    def stochastic(self) -> bool:
        """False: no step adds noise."""
        return False

    def begin(self) -> History:
        """Remember nothing."""
        return None

    def carries(self, index: int) -> bool:
        """Return False: no step does."""
        return False

    def moved(self, index: int, history: History, change: State) -> History:
        """Return the memory as it is: there is nothing to move."""
        return history

    def hold(self, index: int, x: State) -> State:
        """Return `x`: any float32 state can be held."""
        return x


@dataclass(frozen=True)
class FlowProblem(_OneStepProblem):
    """Euler steps of a flow-matching model: x = (1 - sigma) x0 + sigma noise, output m = noise - x0.

    Attributes:
        sigmas: N + 1 noise levels, falling to 0.
        x_start: x_0, any shape, float32.
    """

    sigmas: Sequence[float]
    x_start: State
    floor: float = FLOAT32_RESOLUTION

    def alpha(self, index: int) -> float:
        """Return 1 - sigma."""
        return 1.0 - self.sigmas[index]

    def step(self, index: int, x: State, output: Output, history: History) -> tuple[State, History]:
        """Return x + (sigma_{i+1} - sigma_i) m."""
        return x + output * (self.sigmas[index + 1] - self.sigmas[index]), None

    def predict_x0(self, index: int, x: State, output: Output) -> State:
        """Return x - sigma m."""
        return x - output * self.sigmas[index]

    def from_x0(self, index: int, x: State, x0: State) -> Output:
        """Return (x - x0) / sigma."""
        return (x - x0) / self.sigmas[index]


@dataclass(frozen=True)
class VPProblem(_OneStepProblem):
    """DDIM steps (eta = 0) of a variance-preserving model: x = alpha x0 + sigma noise.

    Attributes:
        alphas: N + 1 signal levels, rising to the end.
        sigmas: N + 1 noise levels.
        x_start: x_0, any shape, float32.
        prediction_type: what the model's output is: epsilon, v_prediction or sample.
    """

    alphas: Sequence[float]
    sigmas: Sequence[float]
    x_start: State
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    floor: float = FLOAT32_RESOLUTION

    def alpha(self, index: int) -> float:
        """Return the signal level."""
        return self.alphas[index]

    def step(self, index: int, x: State, output: Output, history: History) -> tuple[State, History]:
        """Take a step of DDIM, Song et al. 2020, eq. (12), in the form ratio x + (alpha_{i+1} - alpha_i ratio) X0."""
        ratio = self.sigmas[index + 1] / self.sigmas[index]
        x0 = self.predict_x0(index, x, output)
        return x * ratio + x0 * (self.alphas[index + 1] - self.alphas[index] * ratio), None

    def predict_x0(self, index: int, x: State, output: Output) -> State:
        """Return X0 from the output."""
        alpha, sigma = self.alphas[index], self.sigmas[index]
        return predict_x0(self.prediction_type, alpha, sigma, x, output)

    def from_x0(self, index: int, x: State, x0: State) -> Output:
        """Return the output whose prediction is x0."""
        alpha, sigma = self.alphas[index], self.sigmas[index]
        return output_from_x0(self.prediction_type, alpha, sigma, x, x0)


def predict_x0(prediction_type: str, alpha: float, sigma: float, x: State, output: Output) -> State:
    """Return X0 of a model output at x = alpha x0 + sigma noise, for each of the field's prediction types."""
    match prediction_type:
        case "epsilon":
            return (x - output * sigma) / alpha
        case "v_prediction":
            return (x * alpha - output * sigma) / (alpha * alpha + sigma * sigma)
        case "flow_prediction":
            return x - output * sigma
        case "sample":
            return output
    raise ValueError(f"unknown prediction type {prediction_type!r}")


def output_from_x0(prediction_type: str, alpha: float, sigma: float, x: State, x0: State) -> Output:
    """Return the model output at x whose prediction is x0: inverse of `predict_x0`."""
    match prediction_type:
        case "epsilon":
            return (x - x0 * alpha) / sigma
        case "v_prediction":
            return (x * alpha - x0 * (alpha * alpha + sigma * sigma)) / sigma
        case "flow_prediction":
            return (x - x0) / sigma
        case "sample":
            return x0
    raise ValueError(f"unknown prediction type {prediction_type!r}")
