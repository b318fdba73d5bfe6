"""Noise of a pipeline call's steps, and the levels of signal and noise on a scheduler's grid.

A scheduler draws from the generator that its `step` is given, or from torch's global one: for want of a generator, or
because it asks for none. Both are replaced here, so that the noise of a step depends on the call's generator and on the
step alone, never on other items, ranks, or the order in which steps are taken.

Levels turn model outputs into x0-predictions and back, for guesses and tolerances only. A step is always the scheduler's
own, so that a wrong level can cost rounds but never change a result at tolerance 0.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from genrun.adapters.shapes import Bytes
from genrun.solvers.problems import output_from_x0, predict_x0
from genrun.solvers.sequential import Sequential

if TYPE_CHECKING:
    from genrun.adapters.parallel.exchange import Exchange
    from genrun.adapters.shapes import Sample
    from genrun.solvers.contract import Problem, Solver


Generators = torch.Generator | list[torch.Generator] | None
State = list[Bytes]
"""States of the generators handed to `step`, then those of torch's global ones, on the CPU and on the latents' device."""

# Of seeds that torch.Generator takes.
_MOST = 2**63 - 1


class Noise:
    """The random numbers of a call's steps. The caller's own generators, and torch's global ones, move at the end alone.

    Args:
        generator: the call's, as they are when sampling begins; None for torch's global ones.
        device: of the latents.
    """

    def __init__(self, generator: Generators, device: torch.device) -> None:
        given = listed(generator)
        clones = {each: _clone(each) for each in given}  # one that is given twice is drawn from in turn
        self.generators = [clones[each] for each in given]
        self._cuda = device if device.type == "cuda" else None
        self._global = self._kept() if not given else self._derived(given[0])
        self.mixed = True

    def of_step(self) -> torch.Generator | list[torch.Generator] | None:
        """Return what to hand to the scheduler's step."""
        return self.generators if len(self.generators) > 1 else self.generators[0] if self.generators else None

    def state(self) -> State:
        """Return the state of the streams."""
        return [*(each.get_state() for each in self.generators), *self._global]

    def set_state(self, state: State) -> None:
        """Go back, or on, to where the streams stood."""
        count = len(self.generators)
        for generator, value in zip(self.generators, state, strict=False):
            generator.set_state(value)
        self._global = state[count:]

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Draw from these streams inside the block, where torch's global ones are asked as well."""
        if not self.mixed:
            yield
            return
        outside = self._kept()
        self._put(self._global)
        try:
            yield
        finally:
            self._global = self._kept()
            self._put(outside)

    def leave(self, generator: Generators, state: State) -> None:
        """Leave the caller's generators as steps that draw from them would: torch's global ones where there are none.

        Args:
            generator: handed to the steps by the pipeline: one that it keeps to itself is left as it is.
            state: of the streams after the last step.
        """
        for each, value in zip(listed(generator), state, strict=False):
            each.set_state(value)
        if not self.generators:
            self._put(state)

    def leave_global(self, before: State, after: State) -> None:
        """Leave torch's global generators alone from now on, if the steps between two states have drawn nothing there."""
        count = len(self.generators)
        self.mixed = moved(before[count:], after[count:])

    def _kept(self) -> State:
        return global_states(self._cuda or torch.device("cpu"))

    def _put(self, states: State) -> None:
        torch.set_rng_state(states[0])
        if self._cuda is not None:
            torch.cuda.set_rng_state(states[1], self._cuda)

    def _derived(self, generator: torch.Generator) -> State:
        """Derive streams from a generator that do not repeat what it has drawn."""
        seed = int(torch.randint(_MOST, (), generator=_clone(generator), device=generator.device))
        devices = [torch.device("cpu"), *([self._cuda] if self._cuda is not None else [])]
        return [torch.Generator(device).manual_seed(seed).get_state() for device in devices]


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators inside the block, for what a pipeline draws without its generator.

    With other numbers than a generator of that seed gives: noise must not be the start of a trajectory again.
    """
    digest = hashlib.sha256(f"global {seed}".encode()).digest()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)
        yield


def moved(before: State, after: State) -> bool:
    """Return whether anything was drawn between two states."""
    return not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def listed(generator: Generators) -> list[torch.Generator]:
    """Return the generators of a call."""
    return [] if generator is None else generator if isinstance(generator, list) else [generator]


class Strays:
    """Finds out whether a loop draws noise beside its scheduler's steps, which then depends on the steps taken before.

    Torch's global streams are everyone's, of other threads too: where the call has generators of its own, an evaluation in
    which the global ones have moved makes the next one be watched, operation by operation.

    Args:
        generator: what the pipeline was called with.
        problem: one of the call's samples, for the device of its latents.
        exchange: of the ranks: they may be threads, which share the global streams.
        solver: takes steps in the loop's own order, or in another.
    """

    def __init__(self, generator: Generators, problem: Problem, exchange: Exchange, solver: Solver) -> None:
        self._given, self._device = listed(generator), problem.x_start.device
        self._global = exchange.size == 1 and not (self._given and isinstance(solver, Sequential))
        self._before: tuple[State, State] | None = None
        self._suspected = False
        self._watch: DrawWatch | None = None

    def look(self, *, last: bool) -> None:
        """Note where the streams stand after a step."""
        self.end()
        self._before = self._states()
        if self._suspected and not last:
            self._watch = DrawWatch(self._device)
            self._watch.__enter__()

    def drew(self) -> bool:
        """Return whether the loop has drawn anything since the last look."""
        watch = self.end()
        if self._before is None:
            return False
        (given, everyone), (given_now, everyone_now) = self._before, self._states()
        self._suspected = bool(self._given) and moved(everyone, everyone_now)
        drew = watch is not None and watch.drew
        return drew or moved(given, given_now) or (not self._given and moved(everyone, everyone_now))

    def end(self) -> DrawWatch | None:
        """Watch no longer; return what did."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.__exit__(None, None, None)
        return watch

    def _states(self) -> tuple[State, State]:
        return [each.get_state() for each in self._given], global_states(self._device) if self._global else []


class DrawWatch(TorchDispatchMode):
    """Notes, in its thread, whether an operation draws from torch's global generators."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device, self.drew = device, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **(kwargs or {}))
        before = global_states(self._device)
        made = func(*args, **(kwargs or {}))
        self.drew |= moved(before, global_states(self._device))
        return made


def global_states(device: torch.device) -> State:
    """Return the states of torch's global generators, of the CPU and of a device."""
    states = [torch.get_rng_state()]
    return states if device.type != "cuda" else [*states, torch.cuda.get_rng_state(device)]


def _clone(generator: torch.Generator) -> torch.Generator:
    return torch.Generator(generator.device).set_state(generator.get_state())


K_DIFFUSION = ("EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete", "KDPM2", "DPMSolverSDE")
"""Schedulers whose state is x0 + sigma noise."""

EDM = ("EDM", "CosineDPM")
"""Schedulers whose state is x0 + sigma noise, and whose model is preconditioned (Karras et al., 2022)."""

LEAST = 2.0**-24
"""Least square of a signal level."""

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
    # A terminal signal of zero is nothing to divide by; diffusers' k-diffusion schedulers put the same in its place.
    alphas = tuple(math.sqrt(max(a, LEAST)) for a in cumulative)
    sigmas = tuple(math.sqrt(max(1 - a, 0.0)) for a in cumulative)
    return NoiseLevels(alphas, sigmas, prediction)


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(v) for v in values)
