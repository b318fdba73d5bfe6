"""The loop of every solver that slides a window of steps, and the sweep that corrects it; solvers differ in one matrix.

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
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from genrun.solvers.contract import History, Point, Problem, Run
from genrun.solvers.trajectory import Trajectory, rms

if TYPE_CHECKING:
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


Tail = Callable[[Problem, int, "State", History, "State"], tuple["State", History]]
"""Guess x_{i+1} beyond the evaluated states from (problem, i, x_i, history, last x0-prediction)."""


def copy_state(problem: Problem, index: int, x: State, history: History, x0: State) -> tuple[State, History]:
    """Repeat the last state (ParaDiGMS)."""
    return problem.hold(index + 1, x), history


def freeze_x0(problem: Problem, index: int, x: State, history: History, x0: State) -> tuple[State, History]:
    """Step on with the last x0-prediction: the linear solver H of ParaSolver-Turbo, eq. (7), in closed form.

    H(t, s, X, X0) = (sigma_t/sigma_s) X + (alpha_t - alpha_s sigma_t/sigma_s) X0 is what the scheduler's own step gives
    for a model whose prediction is X0, noise and history included.
    """
    return problem.step(index, x, problem.from_x0(index, x, x0), history)


def leap(problem: Problem, start: int, stop: int, x: State, history: History, x0: State) -> tuple[State, History]:
    """Go from x_start to x_stop with the one evaluation that predicted `x0`: the coarse step over many fine ones.

    For DDIM and Euler it is their own step from t_start to t_stop; for any other scheduler, its steps in between with the
    x0-prediction frozen, so that noise and history are those of the fine grid.
    """
    for index in range(start, stop):
        x, history = freeze_x0(problem, index, x, history, x0)
    return x, history


@dataclass(frozen=True)
class Window:
    """A sliding window over one sample.

    Attributes:
        problem: the trajectory.
        workers: K, states evaluated a round.
        coupling: A_i of the sweep.
        tail: the guess for states that no evaluation has touched.
        settled: the acceptance test.
        warmup: sequential steps before the window opens (M of ParaSolver, eq. 20 of ParaSolver-Turbo).
        linear: p, states kept when those beyond the K evaluated ones may be accepted as they are; 0 when they may not.
        max_rounds: budget of rounds, after which the rest is stepped sequentially.
    """

    problem: Problem
    workers: int
    coupling: Coupling
    tail: Tail
    settled: Acceptance
    warmup: int = 0
    linear: int = 0
    max_rounds: int | None = None

    def run(self) -> Run:
        """Sample the trajectory, one round a turn, in at most N rounds."""
        at = Trajectory(self.problem, self.max_rounds)
        states = yield from self._open(at)
        while not at.done and not at.spent:
            block, linear = states[: self.workers], states[self.workers :]
            del states
            outputs = yield from at.ask([Point(at.front + k, x) for k, x in enumerate(block)])
            end = at.front + len(block)
            swept = sweep(at, block, outputs, self.coupling, self.settled)
            if linear and swept.front == end:
                swept = self._skip(swept, linear)
                at.skipped += swept.front - end
            at.accept(swept.front, swept.states[0], swept.history, swept.residual)
            states = self._refill(swept)
            del swept, block  # a window of states is all that may be kept over the round that follows
        return (yield from at.finish())

    def _open(self, at: Trajectory) -> Generator[Sequence[Point], list[Output], list[State]]:
        """Take M exact steps; return the window that the last of them predicts, or copies of x_start."""
        x0 = None
        while at.front < min(self.warmup, self.problem.num_steps) and not at.spent:
            x0 = yield from at.step_front()
        if x0 is None:
            return [at.x] * min(self.workers, self.problem.num_steps)
        return self._refill(Swept(at.front, at.history, [at.x], at.history, x0, 0.0))

    def _skip(self, swept: Swept, linear: list[State]) -> Swept:
        """Accept linear states that no longer change, without evaluating them (ParaSolver-Turbo, algorithm 1, line 11)."""
        front, (x,), history = swept.front, swept.states, swept.end_history
        for old in linear:
            if not self.settled(front, x - old):
                break
            x, history = self.tail(self.problem, front, x, history, swept.x0)
            front += 1
        return replace(swept, front=front, states=[x], history=history, end_history=history)

    def _refill(self, swept: Swept) -> list[State]:
        """Return the next window: the corrected states x_front .. x_end, then guesses up to K (or p) of them."""
        states, history = swept.states, swept.end_history
        width = min(max(self.workers, self.linear), self.problem.num_steps - swept.front)
        end = swept.front + len(states) - 1
        del states[width:]
        for index in range(end, swept.front + width - 1):
            x, history = self.tail(self.problem, index, states[-1], history, swept.x0)
            states.append(x)
        return states
