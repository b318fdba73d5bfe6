"""The loop of every solver that slides a window of consecutive steps: evaluate, sweep, move the front, refill."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from genrun.solvers.contract import History, Point, Problem, Run
from genrun.solvers.sweep import Acceptance, Coupling, Swept, sweep
from genrun.solvers.trajectory import Trajectory

if TYPE_CHECKING:
    from genrun.solvers.shapes import Output, State

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
