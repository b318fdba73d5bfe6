"""ParaTAA: compositions of order k, with triangular Anderson acceleration.

Tang, Tang, Luo, Wang and Chang, "Accelerating Parallel Sampling of Diffusion Models", ICML 2024,
https://arxiv.org/abs/2402.09970.

The order-k equations compose the last k steps, each with the output that was evaluated at its old state: with r_i =
S_{i-1} - x_i and one step's gain a_i = dS_i/dx at a fixed output,

    R_{i+1}^(k) = r_{i+1} + a_i R_i^(k-1),      R_i^(0) = 0,      x_i <- x_i + R_i^(k)

cut off at the front. Order 1 is Jacobi; the full order is the sweep with A_i = a_i. Anderson acceleration then takes the
combination of the last m rounds that would have left the smallest residual: for each state x_i, over the states up to it
(a triangular matrix, since no state depends on a later one), with a ridge lambda,

    gamma_i = (sum_{j<=i} dR_j^T dR_j + lambda I)^-1 sum_{j<=i} dR_j^T R_j,      x_i <- x_i + R_i - (dX_i + dR_i) gamma_i.

The front is never accelerated: its new state is the scheduler's own step (the paper's safeguard), so that the sequential
trajectory is the only fixed point.

Here the sums are means over a state's elements, so that lambda is in squared latent units whatever their number, and
sequential steps can open the window as in ParaSolver.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, get_args

from genrun.solvers.contract import Problem, Run
from genrun.solvers.trajectory import check_choice, check_options, check_warmup
from genrun.solvers.window import Acceptance, Scale, Window, copy_state, sigma_ratio

if TYPE_CHECKING:
    from genrun.solvers.shapes import Output, State


@dataclass(frozen=True)
class Parataa:
    """Order-k sweep over the K steps after the front, Anderson-accelerated; the last state is copied ahead.

    Converges to the sequential trajectory; at most N rounds of K evaluations. Holds 2 (m + 1) states more for each in the
    window, and order - 1 more in all when the order is below K. Acceleration pays in windows much wider than the few steps
    over which one sweep is right.

    Attributes:
        workers: w = K, states evaluated a round.
        tolerance: RMS change, in the units of `scale`, below which a state is settled; 0 is exact.
        order: k, steps composed (default: all from the front, K). 1 is Jacobi.
        history: m, earlier rounds that Anderson acceleration combines; 0 turns it off.
        ridge: lambda, in squared latent units, mean over a state's elements.
        warmup: sequential steps before the window opens.
        max_rounds: rounds after which the rest is stepped sequentially.
        scale: unit of the tolerance: step (the deviation of one DDPM step), noise (sigma_i), absolute, or rmse (the latents'
            deviation).
    """

    workers: int = 8
    tolerance: float = 0.07
    order: int | None = None
    history: int = 1
    ridge: float = 1e-4
    warmup: int = 0
    max_rounds: int | None = None
    scale: Scale = "noise"

    def __post_init__(self) -> None:
        check_options(self.workers, self.tolerance, self.max_rounds)
        check_choice("scale", self.scale, get_args(Scale))
        check_warmup(self.warmup)
        if self.order is not None and self.order < 1:
            raise ValueError(f"order: must be at least 1, got {self.order}")
        if self.history < 0:
            raise ValueError(f"history: must not be negative, got {self.history}")
        if not 0 < self.ridge < float("inf"):
            raise ValueError(f"ridge: must be finite and positive, got {self.ridge}")

    def solve(self, problem: Problem) -> Run:
        """Sample one trajectory."""
        order = min(self.order or self.workers, self.workers)
        return Window(
            problem,
            self.workers,
            Composition(problem, order, Anderson(self.history, self.ridge), full=order == self.workers),
            copy_state,
            Acceptance(problem, self.tolerance, self.scale),
            warmup=self.warmup,
            max_rounds=self.max_rounds,
        ).run()


def output_gain(problem: Problem, index: int) -> float:
    """Return a_i of x_{i+1} = a_i x + b_i m: how a state moves on while the model's output is held.

    With X0 held the gain is sigma_{i+1}/sigma_i; X0 itself is c_i x plus a multiple of the output, whatever that predicts.
    """
    ratio = sigma_ratio(problem, index)
    # A prediction is linear in the state and the output, element by element: one element, at output 0, shows c_i.
    one = problem.x_start.new_ones(1, device="cpu")
    c = float(problem.predict_x0(index, one, one * 0))
    return ratio + (problem.alpha(index + 1) - problem.alpha(index) * ratio) * c


@dataclass
class Composition:
    """The coupling of order k: A_i d_i = a_i R_i^(k-1), for one sample.

    Attributes:
        problem: the trajectory.
        order: k.
        anderson: the acceleration.
        full: True when the order is K, so that R_i^(k-1) is the whole correction.
        partial: R_i^(1) .. R_i^(k-1) of the state before; kept where the order is less than K.
    """

    problem: Problem
    order: int
    anderson: Anderson
    full: bool
    partial: list[State] = field(default_factory=list)

    def begin(self, front: int) -> None:
        """Start from the front, where nothing is to be corrected."""
        self.partial = []
        self.anderson.begin(front)

    def end(self) -> None:
        """Drop the compositions."""
        self.partial = []

    def observe(self, index: int, x: State, output: Output) -> None:
        """Need nothing of it."""

    def couple(self, index: int, correction: State, old: State | None, stepped: State) -> State:
        """Return a_i R_i^(k-1); the correction itself is R_i^(k)."""
        if self.full:
            return correction * output_gain(self.problem, index)
        if self.order == 1:
            return correction * 0  # R_i^(0)
        return self.partial[-1] * output_gain(self.problem, index)

    def propose(self, index: int, old: State, stepped: State, new: State, is_final: bool) -> State:
        """Return the accelerated value."""
        if not self.full and self.order > 1:
            residual = stepped - old
            longer = [residual + p * output_gain(self.problem, index - 1) for p in self.partial]
            self.partial = [residual, *longer][: self.order - 1]
        return self.anderson.accelerate(index, old, new)


@dataclass
class Anderson:
    """Triangular Anderson acceleration for one sample.

    Attributes:
        depth: m.
        ridge: lambda.
        rounds: (x_i, R_i) by i, of the last m rounds and this one, oldest first.
        gram: sums of dR_j^T dR_j over the states so far, newest round first.
        against: sums of dR_j^T R_j likewise.
    """

    depth: int
    ridge: float
    rounds: list[dict[int, tuple[State, State]]] = field(default_factory=list)
    gram: list[list[float]] = field(default_factory=list)
    against: list[float] = field(default_factory=list)

    def begin(self, front: int) -> None:
        """Begin a round, and forget states that are final by now."""
        kept = self.rounds[-self.depth :] if self.depth else []
        self.rounds = [*({i: seen for i, seen in entries.items() if i > front} for entries in kept), {}]
        self.gram = [[0.0] * self.depth for _ in range(self.depth)]
        self.against = [0.0] * self.depth

    def accelerate(self, index: int, old: State, new: State) -> State:
        """Return x_i + R_i - (dX_i + dR_i) gamma_i."""
        if not self.depth:
            return new
        residual = new - old
        self.rounds[-1][index] = (old, residual)
        seen = [entries[index] for entries in reversed(self.rounds) if index in entries]
        changes = [(x - x_before, r - r_before) for (x, r), (x_before, r_before) in pairwise(seen)]
        if not changes:
            return new
        for weight, (dx, dr) in zip(self._weights([dr for _, dr in changes], residual), changes, strict=True):
            new = new - (dx + dr) * weight
        return new

    def _weights(self, changes: Sequence[State], residual: State) -> list[float]:
        """Return gamma_i over the rounds that x_i has been through, with x_i's own part added to the sums."""
        count = len(changes)
        for a, dr in enumerate(changes):
            self.against[a] += mean_product(dr, residual)
            for b in range(count):
                self.gram[a][b] += mean_product(dr, changes[b])
        rows = [[self.gram[a][b] + self.ridge * (a == b) for b in range(count)] for a in range(count)]
        matrix = residual.new_tensor(rows, device="cpu").double()
        return (matrix.inverse() @ matrix.new_tensor(self.against[:count])).tolist()


def mean_product(a: State, b: State) -> float:
    """Return the inner product over the number of elements."""
    return float((a * b).mean())
