"""Signal and noise levels of a diffusers scheduler's grid: what turns model outputs into x0-predictions and back.

They serve guesses and tolerances only. A step is always the scheduler's own, so that a wrong level can cost rounds but
never change a result at tolerance 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from genrun.solvers.problems import output_from_x0, predict_x0

if TYPE_CHECKING:
    from genrun.adapters.shapes import Sample


K_DIFFUSION = ("EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete", "KDPM2", "DPMSolverSDE")
"""Schedulers whose state is x0 + sigma noise."""

EDM = ("EDM", "CosineDPM")
"""Schedulers whose state is x0 + sigma noise, and whose model is preconditioned (Karras et al., 2022)."""


PREDICTIONS = ("epsilon", "v_prediction", "sample", "flow_prediction", "inverse_flow")


@dataclass(frozen=True)
class NoiseLevels:
    """x_i = alphas[i] x0 + sigmas[i] noise on the grid i = 0..N.

    Attributes:
        alphas: N + 1 signal levels.
        sigmas: N + 1 noise levels, falling.
        prediction: epsilon, v_prediction, sample, flow_prediction, or inverse_flow: x0 - noise.
        unscaled: the state is x0 + sigma noise (k-diffusion), and the model sees it divided by sqrt(1 + sigma^2).
        sigma_data: deviation of the data that a model preconditioned as in EDM goes by; 0 for others.
    """

    alphas: tuple[float, ...]
    sigmas: tuple[float, ...]
    prediction: str
    unscaled: bool = False
    sigma_data: float = 0.0

    def within(self, window: range) -> NoiseLevels:
        """Return the levels of a part of the grid's steps."""
        part = slice(window.start, window.stop + 1)
        return replace(self, alphas=self.alphas[part], sigmas=self.sigmas[part])

    def predict_x0(self, index: int, x: Sample, output: Sample) -> Sample:
        """Return the x0-prediction of a model output at x_index."""
        if self.sigma_data:
            skip, out = self._preconditioning(index)
            return x * skip + output * out
        alpha, sigma, x = self._as_model_sees(index, x)
        if self.prediction == "inverse_flow":
            return x + output * sigma
        return predict_x0(self.prediction, alpha, sigma, x, output)

    def from_x0(self, index: int, x: Sample, x0: Sample) -> Sample:
        """Return the model output at x_index whose prediction is x0."""
        if self.sigma_data:
            skip, out = self._preconditioning(index)
            return (x0 - x * skip) / out
        alpha, sigma, x = self._as_model_sees(index, x)
        if self.prediction == "inverse_flow":
            return (x0 - x) / sigma
        return output_from_x0(self.prediction, alpha, sigma, x, x0)

    def _as_model_sees(self, index: int, x: Sample) -> tuple[float, float, Sample]:
        alpha, sigma = self.alphas[index], self.sigmas[index]
        if not self.unscaled:
            return alpha, sigma, x
        norm = math.hypot(alpha, sigma)
        return alpha / norm, sigma / norm, x / norm

    def _preconditioning(self, index: int) -> tuple[float, float]:
        """Return c_skip and c_out of EDM, table 1."""
        sigma, data = self.sigmas[index], self.sigma_data
        square = sigma**2 + data**2
        sign = -1 if self.prediction == "v_prediction" else 1
        return data**2 / square, sign * sigma * data / math.sqrt(square)


def noise_levels(scheduler: Any) -> NoiseLevels:
    """Read the levels of a scheduler after `set_timesteps`; rough ones where genrun does not know how to read them."""
    name, config = type(scheduler).__name__, scheduler.config
    steps, prediction = len(scheduler.timesteps), config.get("prediction_type", "epsilon")
    levels = None
    if (
        "FlowMatch" in name
        or "EulerAncestralRF" in name
        or config.get("use_flow_sigmas")
        or prediction == "flow_prediction"
    ):
        levels = _flow(_floats(scheduler.sigmas), inverted=bool(config.get("invert_sigmas")))
    elif name.startswith(EDM):
        sigmas = _floats(scheduler.sigmas)
        levels = NoiseLevels((1.0,) * len(sigmas), sigmas, prediction, sigma_data=float(config.sigma_data))
    elif hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        levels = _variance_preserving([1 / (1 + s * s) for s in _floats(scheduler.sigmas)], prediction)
    elif any(fragment in name for fragment in K_DIFFUSION):
        sigmas = _stages(scheduler) if "KDPM2" in name else _floats(scheduler.sigmas)
        levels = NoiseLevels((1.0,) * len(sigmas), sigmas, prediction, unscaled=True)
    elif "IPNDM" in name:
        alphas, sigmas = _floats(scheduler.alphas), _floats(scheduler.betas)
        levels = NoiseLevels(alphas, sigmas, "v_prediction")
    elif hasattr(scheduler, "alphas_cumprod") and not hasattr(scheduler, "sigmas"):
        cumulative = scheduler.alphas_cumprod
        last = float(getattr(scheduler, "final_alpha_cumprod", 1.0))
        levels = _variance_preserving([float(cumulative[int(t)]) for t in scheduler.timesteps] + [last], prediction)
    return levels if levels is not None and _usable(levels, steps) else _rough(steps)


def _flow(sigmas: tuple[float, ...], *, inverted: bool) -> NoiseLevels:
    rest = tuple(1 - s for s in sigmas)
    return NoiseLevels(sigmas, rest, "inverse_flow") if inverted else NoiseLevels(rest, sigmas, "flow_prediction")


def _stages(scheduler: Any) -> tuple[float, ...]:
    """Return the levels of KDPM2, whose every second step is a stage between two levels."""
    count = len(scheduler.timesteps)
    sigmas, between = _floats(scheduler.sigmas)[: count + 1], _floats(scheduler.sigmas_interpol)
    back = 1 if "Ancestral" in type(scheduler).__name__ else 0
    return tuple(between[i - back] if i % 2 and i < count else sigma for i, sigma in enumerate(sigmas))


def _usable(levels: NoiseLevels, steps: int) -> bool:
    """Return whether there is a level for each step, none divides by zero, and the prediction is a known one."""
    return (
        levels.prediction in PREDICTIONS
        and len(levels.sigmas) == steps + 1
        and all(0 < s < math.inf for s in levels.sigmas[:-1])
    )


def _rough(steps: int) -> NoiseLevels:
    """Return levels that fall evenly: they can be computed with, and all that they cost is rounds."""
    return _flow(tuple(1 - index / steps for index in range(steps + 1)), inverted=False)


def _variance_preserving(cumulative: list[float], prediction: str) -> NoiseLevels:
    alphas = tuple(math.sqrt(a) for a in cumulative)
    sigmas = tuple(math.sqrt(max(1 - a, 0.0)) for a in cumulative)
    return NoiseLevels(alphas, sigmas, prediction)


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
