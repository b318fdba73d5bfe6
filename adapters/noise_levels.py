"""Signal and noise levels of a diffusers scheduler's grid: what turns model outputs into x0-predictions and back.

They serve guesses and tolerances only. A step is always the scheduler's own, so that a wrong level can cost rounds but
never change a result at tolerance 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genrun.solvers.problems import output_from_x0, predict_x0

if TYPE_CHECKING:
    from torch import Tensor


K_DIFFUSION = ("EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete", "KDPM2")
"""Schedulers whose state is x0 + sigma noise."""


class UnknownSchedulerError(TypeError):
    """A scheduler whose noise levels genrun does not know."""


@dataclass(frozen=True)
class NoiseLevels:
    """x_i = alphas[i] x0 + sigmas[i] noise on the grid i = 0..N.

    Attributes:
        alphas: N + 1 signal levels.
        sigmas: N + 1 noise levels, falling.
        prediction: epsilon, v_prediction, sample or flow_prediction.
        unscaled: the state is x0 + sigma noise (k-diffusion), and the model sees it divided by sqrt(1 + sigma^2).
    """

    alphas: tuple[float, ...]
    sigmas: tuple[float, ...]
    prediction: str
    unscaled: bool = False

    def predict_x0(self, index: int, x: Tensor, output: Tensor) -> Tensor:
        """X0 of a model output at x_index."""
        alpha, sigma, x = self._as_model_sees(index, x)
        return predict_x0(self.prediction, alpha, sigma, x, output)

    def from_x0(self, index: int, x: Tensor, x0: Tensor) -> Tensor:
        """The model output at x_index whose prediction is x0."""
        alpha, sigma, x = self._as_model_sees(index, x)
        return output_from_x0(self.prediction, alpha, sigma, x, x0)

    def _as_model_sees(self, index: int, x: Tensor) -> tuple[float, float, Tensor]:
        alpha, sigma = self.alphas[index], self.sigmas[index]
        if not self.unscaled:
            return alpha, sigma, x
        norm = math.hypot(alpha, sigma)
        return alpha / norm, sigma / norm, x / norm


def noise_levels(scheduler: Any) -> NoiseLevels:
    """Read the levels of a scheduler after `set_timesteps`. Raises UnknownSchedulerError."""
    name, prediction = type(scheduler).__name__, scheduler.config.get("prediction_type", "epsilon")
    if "FlowMatch" in name or scheduler.config.get("use_flow_sigmas") or prediction == "flow_prediction":
        sigmas = _floats(scheduler.sigmas)
        return NoiseLevels(tuple(1 - s for s in sigmas), sigmas, "flow_prediction")
    if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        return _variance_preserving([1 / (1 + s * s) for s in _floats(scheduler.sigmas)], prediction)
    if any(fragment in name for fragment in K_DIFFUSION):
        sigmas = _floats(scheduler.sigmas)
        return NoiseLevels((1.0,) * len(sigmas), sigmas, prediction, unscaled=True)
    if hasattr(scheduler, "alphas_cumprod") and not hasattr(scheduler, "sigmas"):
        cumulative = scheduler.alphas_cumprod
        last = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
        return _variance_preserving([float(cumulative[int(t)]) for t in scheduler.timesteps] + [last], prediction)
    raise UnknownSchedulerError(
        f"{name}: its noise levels are not known to genrun, so it cannot be sampled in parallel. Use solver sequential, "
        "or one of the schedulers FlowMatchEuler, DDIM, DDPM, DPMSolverMultistep, UniPCMultistep, EulerDiscrete."
    )


def _variance_preserving(cumulative: list[float], prediction: str) -> NoiseLevels:
    alphas = tuple(math.sqrt(a) for a in cumulative)
    sigmas = tuple(math.sqrt(max(1 - a, 0.0)) for a in cumulative)
    return NoiseLevels(alphas, sigmas, prediction)


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
