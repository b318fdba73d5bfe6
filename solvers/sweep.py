"""The sweep: how a round of evaluations corrects the states after the front. Solvers differ in one matrix of it.

With r_i = S_i(x_i, m_i) - x_{i+1}, the corrections obey d_{i+1} = A_i d_i + r_i from d_front = 0, and x_{i+1} += d_{i+1}.
A_i stands for dS_i/dx_i, which would make this Newton's method: 0 is Jacobi iteration, I is the prefix sum of ParaDiGMS,
sigma_{i+1}/sigma_i holds the x0-prediction.

It is computed as x_{i+1} = S_i(x_i, m_i) + A_i d_i, so that d_i = 0 gives the sequential step bit for bit, for one-step and
multistep schedulers alike: S is the pipeline's own scheduler, run from the front with its history. Some schedulers carry
the state itself there (UniPC's corrector starts from the last sample that it remembers, not from the one it is given): run
from the front, their S_i passes the correction on by itself, with the x0-predictions held, and only the rest is added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from genrun.solvers.contract import History, Problem
from genrun.solvers.trajectory import Trajectory, rms

if TYPE_CHECKING:
    from collections.abc import Callable

    from genrun.solvers.shapes import Output, State


Scale = Literal["step", "noise", "absolute", "rmse"]
"""Units of a tolerance; see `Acceptance`."""


@dataclass
class Acceptance:
    """The test that a state is settled: its RMS change is at most tolerance * unit(i).

    The unit of state x_i is, by `scale`:

    - `step`: the deviation of the noise that DDPM's step from x_i adds, as in the code of ParaDiGMS and ParaSolver;
    - `noise`: the sampler's noise level sigma_i, not below `least_sigma`;
    - `absolute`: 1, the latents' own;
    - `rmse`: the deviation of the latents, as the newest x0-prediction shows it: the unit of latent RMSE.

    The dtype's own resolution is the floor of the threshold. Tolerance 0 asks for no change at all, to the last bit.
    """

    problem: Problem
    tolerance: float
    scale: Scale = "noise"
    # sigma_N is 0: in proportion to it, the last states would never be settled.
    least_sigma: float = 0.1
    deviation: float = 1.0

    def __call__(self, index: int, change: State) -> bool:
        """Return True when `change` of state x_index is small enough."""
        if self.tolerance == 0:
            return not bool(change.any())
        return rms(change) <= max(self.tolerance * self.unit(index), self.problem.floor)

    def learn(self, x0: State) -> None:
        """Take the latents' deviation from an x0-prediction, where the unit is that."""
        if self.scale == "rmse":
            self.deviation = float(x0.std())

    def unit(self, index: int) -> float:
        """Return the unit of a change of state x_index."""
        if self.scale == "noise":
            return max(self.problem.sigma(index), self.least_sigma)
        if self.scale == "step":
            return step_deviation(self.problem, index)
        return self.deviation if self.scale == "rmse" else 1.0


def step_deviation(problem: Problem, index: int) -> float:
    """Return the deviation of q(x_{i+1} | x_i, x0), of DDPM's step from x_i (Ho et al., 2020, eq. 7); 0 for x_N."""
    after = problem.sigma(index + 1) if index < problem.num_steps else 0.0
    if after == 0:
        return after
    kept = problem.alpha(index) * after / (problem.alpha(index + 1) * problem.sigma(index))
    return after * math.sqrt(max(0.0, 1 - kept**2))


@runtime_checkable
class Coupling(Protocol):
    """A solver's A_i, and its freedom over states that are not accepted yet."""

    def begin(self, front: int) -> None:
        """Prepare for a new sweep from the front."""
        ...

    def end(self) -> None:
        """Drop what the sweep needed: nothing the size of a state need be kept but what the next one uses."""
        ...

    def observe(self, index: int, x: State, output: Output) -> None:
        """Learn from the evaluation made at state x_index, before its step is taken."""
        ...

    def couple(self, index: int, correction: State, old: State | None, stepped: State) -> State:
        """Return A_i d_i, given S_i(x_i, m_i), and x_{i+1} so far; None after the last evaluated state."""
        ...

    def propose(self, index: int, old: State, stepped: State, new: State, is_final: bool) -> State:
        """Return the next iterate of x_index, given S(x, m) of the step before it and the full sweep's value `new`.

        Up to the new front the value is `new` whatever is returned: `is_final` tells so.
        """
        ...


@dataclass(frozen=True)
class Scaled:
    """A_i = gain(i) I: 1 for the prefix sum, sigma_{i+1}/sigma_i for a held x0-prediction."""

    gain: Callable[[int], float]

    def begin(self, front: int) -> None:
        """Need no preparation."""

    def end(self) -> None:
        """Keep nothing."""

    def observe(self, index: int, x: State, output: Output) -> None:
        """Need nothing of it."""

    def couple(self, index: int, correction: State, old: State | None, stepped: State) -> State:
        """Return A_i d_i."""
        return correction * self.gain(index)

    def propose(self, index: int, old: State, stepped: State, new: State, is_final: bool) -> State:
        """Take the full sweep's value."""
        return new


def identity(index: int) -> float:
    """Return the gain of the prefix sum, 1."""
    return 1.0


def lag_x0(problem: Problem) -> Scaled:
    """Return A_i = sigma_{i+1}/sigma_i: a state moves on as if its x0-prediction stayed what it was."""
    return Scaled(lambda index: sigma_ratio(problem, index))


def sigma_ratio(problem: Problem, index: int) -> float:
    """Return sigma_{i+1}/sigma_i: how much of a state's move a step passes on while the x0-prediction is held."""
    return problem.sigma(index + 1) / problem.sigma(index)


@dataclass
class Swept:
    """The result of a sweep.

    Attributes:
        front: the new front.
        history: the scheduler's memory there.
        states: x_front .. x_end, corrected; the first is final.
        end_history: the scheduler's memory at x_end, the first state that has not been evaluated.
        x0: the x0-prediction made at the last evaluated state.
        residual: largest RMS change.
    """

    front: int
    history: History
    states: list[State]
    end_history: History
    x0: State
    residual: float


def sweep(at: Trajectory, states: list[State], outputs: list[Output], coupling: Coupling, settled: Acceptance) -> Swept:
    """Correct the evaluated states x_front, x_{front+1}, .. and find the new front.

    The new front is the first state that changed too much, or the end: all states before it are settled, so its new
    value is accepted, undamped, and the front moves at least one step.

    Args:
        at: the accepted part of the trajectory, up to the front.
        states: the evaluated states, corrected in place and extended by the one after them.
        outputs: the model's outputs there, emptied here so that memory is freed as the sweep goes.
        coupling: A_i.
        settled: the acceptance test.
    """
    problem, history, count = at.problem, at.history, len(outputs)
    x0 = problem.predict_x0(at.front + count - 1, states[-1], outputs[-1])
    settled.learn(x0)
    accepted: tuple[int, History] | None = None
    correction: State | None = None
    residual, x = 0.0, states[0]
    coupling.begin(at.front)
    for index in range(at.front, at.front + count):
        output = outputs.pop(0)
        coupling.observe(index, x, output)
        new, history = problem.step(index, x, output, history)
        del output
        stepped, old = new, states[index + 1 - at.front] if outputs else None
        if correction is not None and problem.carries(index):
            # `new` already has the correction in it, through the state in the memory: take it out for S_i of x_i alone.
            stepped = new - correction * sigma_ratio(problem, index)
            change = stepped + coupling.couple(index, correction, old, stepped) - new
            new, history = problem.hold(index + 1, new + change), problem.moved(index + 1, history, change)
        elif correction is not None:
            new = problem.hold(index + 1, stepped + coupling.couple(index, correction, old, stepped))
        if not outputs:
            states.append(new)
            break
        position = index + 1 - at.front
        x = states[position]
        correction = new - x
        residual = max(residual, rms(correction))
        is_final = accepted is None
        proposed = coupling.propose(index + 1, x, stepped, new, is_final)
        # Up to the new front the plain value, not the coupling's: it has to be what the sequential loop makes.
        states[position] = new if is_final else problem.hold(index + 1, proposed)
        if is_final and not settled(index + 1, correction):
            accepted = (index + 1, history)
        if not bool(correction.any()):
            correction = None  # so that the next step is the scheduler's own, to the last bit
    coupling.end()
    front, front_history = accepted or (at.front + count, history)
    return Swept(front, front_history, states[front - at.front :], history, x0, residual)
