"""What a solver is asked, what it asks for, and what it returns.

Grid: i = 0 (noise) .. N (clean). x_0 is given, m_i is the model's output at (x_i, t_i) with guidance included, and one
sequential step is x_{i+1} = S_i(x_i, m_i): the pipeline's own scheduler. The front f is the last state that is final.

Tensors are touched through their methods only, so that importing this package does not import torch.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor


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


@dataclass(frozen=True)
class Point:
    """A state whose model output a solver wants next.

    Attributes:
        index: step i in 0..N-1.
        x: the state x_i, float32, one sample (its batch dimension, if any, is 1).
    """

    index: int
    x: Tensor


@dataclass(frozen=True)
class Solution:
    """What a solver found, and what it cost.

    Attributes:
        x: the final state x_N, float32.
        rounds: parallel model calls.
        nfe: model evaluations asked for (number of function evaluations).
        fronts: the front after each round; its length is `rounds`.
        residuals: largest RMS change over the evaluated block, of each round.
        converged_by: "tolerance"; "sequential" when the budget of rounds ran out and the rest was stepped; "first_core"
            when a fastest core's result was taken as it was.
        skipped: states accepted without ever being evaluated (0 for exact modes).
        blocks: evaluations of transformer blocks, all ranks together; 0 where the model has none, or nobody counted.
        blocks_full: the same with nothing left out by a cache.
    """

    x: Tensor
    rounds: int
    nfe: int
    fronts: tuple[int, ...]
    residuals: tuple[float, ...] = field(default=())
    converged_by: str = "tolerance"
    skipped: int = 0
    blocks: float = 0.0
    blocks_full: float = 0.0


class Problem(Protocol):
    """One sample's sampling trajectory: a start and the scheduler's steps."""

    @property
    def num_steps(self) -> int:
        """N, the number of sequential steps."""
        ...

    @property
    def x_start(self) -> Tensor:
        """x_0 as float32."""
        ...

    @property
    def stochastic(self) -> bool:
        """Whether steps add noise of their own, so that the predictions along a trajectory are no smooth curve."""
        ...

    def begin(self) -> History:
        """The scheduler's memory before step 0."""
        ...

    def step(self, index: int, x: Tensor, output: Tensor, history: History) -> tuple[Tensor, History]:
        """S_i: the next state (float32, a value the pipeline could hold) and the memory after the step."""
        ...

    def carries(self, index: int) -> bool:
        """Whether step `index` takes its state from the memory, and from `x` only what the output predicts."""
        ...

    def moved(self, index: int, history: History, change: Tensor) -> History:
        """The memory before step `index`, with the state that it carries, if any, moved as x_index is by `change`."""
        ...

    def hold(self, index: int, x: Tensor) -> Tensor:
        """X rounded to what the pipeline can hold before step `index`, as float32."""
        ...

    def predict_x0(self, index: int, x: Tensor, output: Tensor) -> Tensor:
        """X0_i(x, m): the clean sample that output `m` at state `x` predicts, float32."""
        ...

    def from_x0(self, index: int, x: Tensor, x0: Tensor) -> Tensor:
        """The model output at state `x` whose prediction is `x0`: inverse of `predict_x0`."""
        ...

    def alpha(self, index: int) -> float:
        """Signal level at grid point i in 0..N."""
        ...

    def sigma(self, index: int) -> float:
        """Noise level at grid point i in 0..N."""
        ...

    @property
    def floor(self) -> float:
        """Smallest change that the pipeline's dtype can express in a state of unit size."""
        ...


Run = Generator[Sequence[Point], "list[Tensor]", Solution]
"""Yield the points of a round, receive a list of their outputs in the same order (to keep), return the solution."""


class Solver(Protocol):
    """A frozen dataclass whose fields are its options in a job file."""

    @property
    def workers(self) -> int:
        """K, the most points a round may hold."""
        ...

    def solve(self, problem: Problem) -> Run:
        """Sample one trajectory."""
        ...
