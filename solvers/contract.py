"""The contract between a solver, the problem that it solves, and whoever evaluates the model.

Grid: i = 0 (noise) .. N (clean). x_0 is given, m_i is the model's output at (x_i, t_i) with guidance included, and one
sequential step is x_{i+1} = S_i(x_i, m_i): the pipeline's own scheduler. The front f is the last state that is final.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from genrun.solvers.drawing import Drawing, draw_fronts

# Tensors are touched through their methods only, here and in every solver: importing them does not import torch.
if TYPE_CHECKING:
    from genrun.solvers.shapes import Output, State


History = Any
"""A scheduler's memory before a step: opaque to solvers, and never changed in place."""


class SolverError(Exception):
    """A sample that cannot be solved."""


class NonFiniteError(SolverError):
    """The model or the scheduler returned NaN or infinity."""

    def __init__(self, step: int, round_number: int) -> None:
        super().__init__(f"non-finite values at step {step} in round {round_number}")
        self.step = step
        self.round_number = round_number


class GuessError(NonFiniteError):
    """The model returned NaN or infinity at a state that a solver guessed, as beyond the range of float16.

    Attributes:
        rest: what samples on from the front, which is as good as ever.
    """

    def __init__(self, step: int, round_number: int, rest: Run) -> None:
        super().__init__(step, round_number)
        self.rest = rest


@dataclass(frozen=True)
class Point:
    """A state whose model output a solver wants next.

    Attributes:
        index: step i in 0..N-1.
        x: the state x_i, float32, one sample (its batch dimension, if any, is 1).
    """

    index: int
    x: State


@dataclass(frozen=True)
class Solution:
    """A sample, and what it cost.

    Attributes:
        x: the final state x_N, float32.
        rounds: parallel model calls.
        nfe: model evaluations asked for (number of function evaluations).
        fronts: the front after each round, lower than before where a gap was rejected; its length is `rounds`.
        residuals: largest RMS change over the evaluated block, of each round.
        converged_by: "tolerance"; "sequential" when the budget of rounds ran out, or a guess was not finite, and the rest
            was stepped; "first_core" when a fastest core's result was taken as it was.
        skipped: states accepted without ever being evaluated (0 for exact modes).
        blocks: evaluations of transformer blocks, all ranks together; 0 where the model has none, or nobody counted.
        blocks_full: the same with nothing left out by a cache.
    """

    x: State
    rounds: int
    nfe: int
    fronts: tuple[int, ...]
    residuals: tuple[float, ...] = field(default=())
    converged_by: str = "tolerance"
    skipped: int = 0
    blocks: float = 0.0
    blocks_full: float = 0.0

    def __repr__(self) -> str:
        # Latents fill a screen, and tell nobody anything.
        steps = self.fronts[-1] if self.fronts else 0
        calls = f"{self.rounds} model calls in a row"
        calls += f" instead of {steps} ({steps / self.rounds:.2f}x)" if 0 < self.rounds < steps else ""
        return f"Solution({calls}, {self.nfe} evaluations, converged by {self.converged_by})"

    def _repr_html_(self) -> str:
        """Return the cost as a table, and the fronts as a picture, for notebooks."""
        steps = self.fronts[-1] if self.fronts else 0
        rows = {
            "model calls in a row": f"{self.rounds} instead of {steps}" if self.rounds < steps else str(self.rounds),
            "evaluations (NFE)": str(self.nfe),
            "converged by": self.converged_by,
        }
        cells = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows.items())
        return f"<table>{cells}</table>{self.plot().svg if self.fronts else ''}"

    def plot(self) -> Drawing:
        """Return a picture of the final states over rounds, which a notebook shows.

        Raises:
            ValueError: there were no rounds.
        """
        if not self.fronts:
            raise ValueError("there were no rounds to draw")
        return draw_fronts(self.fronts)


@runtime_checkable
class Problem(Protocol):
    """The sampling trajectory of one sample: a start and the scheduler's steps."""

    @property
    def num_steps(self) -> int:
        """N, the number of sequential steps."""
        ...

    @property
    def x_start(self) -> State:
        """x_0 as float32."""
        ...

    @property
    def stochastic(self) -> bool:
        """True when steps add noise of their own, so that the predictions along a trajectory are no smooth curve."""
        ...

    @property
    def floor(self) -> float:
        """Smallest change that the pipeline's dtype can express in a state of unit size."""
        ...

    def alpha(self, index: int) -> float:
        """Return the signal level at grid point i in 0..N."""
        ...

    def sigma(self, index: int) -> float:
        """Return the noise level at grid point i in 0..N."""
        ...

    def begin(self) -> History:
        """Return the scheduler's memory before step 0."""
        ...

    def step(self, index: int, x: State, output: Output, history: History) -> tuple[State, History]:
        """Take step S_i: return the next state (float32, a value the pipeline could hold) and the memory after it."""
        ...

    def hold(self, index: int, x: State) -> State:
        """Round `x` to what the pipeline can hold before step `index`, as float32."""
        ...

    def carries(self, index: int) -> bool:
        """Return True when step `index` starts from the state in its memory, and takes only the prediction from `x`."""
        ...

    def moved(self, index: int, history: History, change: State) -> History:
        """Return the memory before step `index` with the state in it, if any, moved by `change`, as x_index is."""
        ...

    def predict_x0(self, index: int, x: State, output: Output) -> State:
        """Return X0_i(x, m): the clean sample that output `m` at state `x` predicts, float32."""
        ...

    def from_x0(self, index: int, x: State, x0: State) -> Output:
        """Return the model output at state `x` whose prediction is `x0`: inverse of `predict_x0`."""
        ...


Run = Generator[Sequence[Point], "list[Output]", Solution]
"""Yields the points of a round, receives a list of their outputs in the same order (to keep), returns the solution."""


@runtime_checkable
class Solver(Protocol):
    """A frozen dataclass whose fields are its options in a job file."""

    @property
    def workers(self) -> int:
        """K, the most points a round may hold."""
        ...

    def solve(self, problem: Problem) -> Run:
        """Sample one trajectory."""
        ...


def guarded(run: Run) -> Run:
    """Run a solver; where a guess of its cannot be evaluated, step on from the front, as the sequential solver does."""
    try:
        return (yield from run)
    except GuessError as error:
        rest = error.rest
    return (yield from rest)


Evaluate = Callable[[Sequence[Point]], "list[Output]"]
"""The model: called once a round, returns its outputs at the points, in their order."""


def drive(solver: Solver, problem: Problem, evaluate: Evaluate) -> Solution:
    """Run `solver` on `problem`, calling `evaluate(points)` once a round for the model outputs at the points."""
    run = guarded(solver.solve(problem))
    points = next(run)
    try:
        while True:
            outputs = list(evaluate(points))
            del points  # their states can be freed while the solver works
            points = run.send(outputs)
    except StopIteration as stop:
        return stop.value
