"""The accepted part of a trajectory, the counting that every solver shares, and checks of its options."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING

from genrun.solvers.contract import GuessError, History, NonFiniteError, Point, Problem, Run, Solution

if TYPE_CHECKING:
    from genrun.solvers.shapes import Output, State

Round = Generator[Sequence[Point], "list[Output]", "list[Output]"]
"""A part of a solver's run that asks for one round and returns its outputs."""


def check_options(workers: int, tolerance: float, max_rounds: int | None) -> None:
    """Refuse options that no windowed solver can work with; raises ValueError("field: why")."""
    if workers < 1:
        raise ValueError(f"workers: must be at least 1, got {workers}")
    if not 0 <= tolerance < float("inf"):
        raise ValueError(f"tolerance: must be finite and not negative, got {tolerance}")
    if max_rounds is not None and max_rounds < 1:
        raise ValueError(f"max_rounds: must be at least 1, got {max_rounds}")


def check_warmup(warmup: int) -> None:
    """Refuse a negative number of sequential steps before the window; raises ValueError("warmup: why")."""
    if warmup < 0:
        raise ValueError(f"warmup: must not be negative, got {warmup}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not one of `choices`; raises ValueError("name: why")."""
    if value not in choices:
        raise ValueError(f"{name}: must be {' or '.join(choices)}, got {value!r}")


def rms(x: State) -> float:
    """Return the root mean square over all elements, computed in float32."""
    return float(x.square().mean().sqrt())


def same_history(a: History, b: History) -> bool:
    """Return True when two histories hold the same values, to the last bit; False where that cannot be told."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_history(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_history, a, b))
    if hasattr(a, "shape"):  # tensors and numpy arrays alike
        return a.shape == b.shape and a.dtype == b.dtype and not bool((a != b).any())
    return isinstance(a, str | int | float) and a == b


@dataclass
class Trajectory:
    """A sample on its way: the front, its state, the scheduler's memory there, and what it has cost.

    `x` and `history` belong to the front: both are final unless the solver corrects the front or goes back from it, and the
    next round evaluates `x` first.
    """

    problem: Problem
    max_rounds: int | None = None
    front: int = 0
    rounds: int = 0
    nfe: int = 0
    skipped: int = 0
    converged_by: str = "tolerance"
    fronts: list[int] = field(default_factory=list)
    residuals: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.x = self.problem.x_start
        self.history: History = self.problem.begin()

    @property
    def done(self) -> bool:
        """True when x_N is final."""
        return self.front == self.problem.num_steps

    @property
    def spent(self) -> bool:
        """True when the budget of parallel rounds is used up."""
        return self.max_rounds is not None and self.rounds >= self.max_rounds

    def ask(self, points: Sequence[Point]) -> Round:
        """Run one round: evaluate `points`, the front's first.

        Raises:
            NonFiniteError: the model returned NaN or infinity at the front.
            GuessError: it did so at another state, which need not be one of the trajectory's.
        """
        indices = [point.index for point in points]
        outputs = yield points
        self.rounds += 1
        self.nfe += len(indices)
        self._check_finite(indices[0], outputs[0])
        for index, output in zip(indices[1:], outputs[1:], strict=True):
            if not is_finite(output):
                raise GuessError(index, self.rounds, self._finish_from(outputs[0]))
        return outputs

    def _finish_from(self, output: Output) -> Run:
        """Step on from the front with its output, which the round has brought, and then sequentially."""
        self.converged_by = "sequential"
        self.accept(self.front + 1, *self.problem.step(self.front, self.x, output, self.history))
        return (yield from self.finish())

    def accept(self, front: int, x: State, history: History, residual: float = 0.0) -> None:
        """Make `x` the state of a new front, which lies beyond the old one."""
        self._check_finite(front - 1, x)
        self.front, self.x, self.history = front, x, history
        self.fronts.append(front)
        self.residuals.append(residual)

    def correct(self, x: State, history: History) -> None:
        """Replace the state of the front, from which nothing has been stepped yet."""
        self._check_finite(self.front - 1, x)
        self.x, self.history = x, history

    def retreat(self, front: int, x: State, history: History) -> None:
        """Go back to an earlier front, between which and the one so far steps were left out, at the end of a round."""
        self.skipped -= self.front - front
        self.front, self.x, self.history = front, x, history
        self.fronts.append(front)
        self.residuals.append(0.0)

    def step_front(self) -> Generator[Sequence[Point], list[Output], State]:
        """Take one sequential step from the front; returns the x0-prediction made there."""
        index, x = self.front, self.x
        (output,) = yield from self.ask([Point(index, x)])
        stepped, history = self.problem.step(index, x, output, self.history)
        self.accept(index + 1, stepped, history)
        return self.problem.predict_x0(index, x, output)

    def finish(self) -> Run:
        """Step sequentially through what is left, if anything, and return the solution."""
        if not self.done:
            self.converged_by = "sequential"
        while not self.done:
            yield from self.step_front()
        return Solution(
            x=self.x,
            rounds=self.rounds,
            nfe=self.nfe,
            fronts=tuple(self.fronts),
            residuals=tuple(self.residuals),
            converged_by=self.converged_by,
            skipped=self.skipped,
        )

    def _check_finite(self, index: int, value: Output) -> None:
        if not is_finite(value):
            raise NonFiniteError(index, self.rounds)


def is_finite(value: Output) -> bool:
    """Return True where all values are."""
    # The sum, a pass instead of four, is finite only where all are; it can overflow where they are.
    return isfinite(float(value.sum())) or bool(value.isfinite().all())
