"""ROPA: a sweep of adaptive bandwidth, damped, and corrected along the score.

"ROPA: Robust Parallel Diffusion Sampling", algorithm 1; anonymous authors, manuscript under double-blind review for ICLR
2026 (no public version is known to us). Numbers of equations, takeaways and lines are the manuscript's; its appendix
prints a class of the algorithm.

The sweep d_{i+1} = r_i + A_i d_i has A_i = a_i (I - kappa_i s_i s_i^T), a_i = sigma_{i+1}/sigma_i, and three controls:

- Bandwidth, eq. (9) to (13): a state is corrected by the last w_i residuals only; w_i grows by one where e_i = |r_i| >
  alpha mean(e), and shrinks by one where e_i < beta mean(e).
- Damping, takeaway 2.6: d / (1 + lambda). lambda doubles where the gain ratio

      rho = sum (|r_i^before|^2 - |r_i|^2) / sum d_i^before . (lambda d_i^before + r_i^before)

  is below 0.1, and halves where it is above 0.5.
- Curvature, eq. (14) to (16): where |cos(r_i, s_i)| > gamma, with the unit score s_i, kappa_i follows the secant between
  two iterates: what A_i missed along s_i is the residual there.

Where this differs from the text:

- The initial noise x_T is kept, and the unknowns are the states after it. The printed class overwrites x_T, and returns
  what it started x_0 from.
- Windows begin at w_i = K instead of 1, which is Jacobi iteration. Any w_i has the same fixed point, and no w_i costs an
  evaluation.
- lambda is one for the whole window and begins at 0; the class keeps one a step, from 1e-2. The text's rule, to double it
  until |dx|/|R| < 0.3, would need lambda > 2.3 at all times and never converge. The gain ratio is of squared norms.
- Eq. (15) preconditions the residual, and removes the component that triggered it. Read as a correction of A_i, it is
  positive definite and only takes away, so kappa lies in [0, 1]; negative values, which would carry more on along s, cost
  rounds where we measured.
- gamma is 0.3 by default; the class has 0.85.
- A state is settled by its own RMS change in the latents' units; the text's threshold grows with g(t).

Neither damping nor correction touches the front's step or an accepted state, so that the sequential trajectory is the only
fixed point.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from genrun.solvers.contract import Problem, Run
from genrun.solvers.sweep import Acceptance, Scale, sigma_ratio
from genrun.solvers.trajectory import check_choice, check_options, check_warmup
from genrun.solvers.window import Window, freeze_x0

if TYPE_CHECKING:
    from genrun.solvers.shapes import Output, State

ALPHA, BETA = 1.5, 0.7
"""Residuals, over the mean, above which a bandwidth grows and below which it shrinks: the defaults of eq. (13)."""
LEAST_GAIN, GOOD_GAIN = 0.1, 0.5
"""Gain ratios below which the damping doubles and above which it halves: those of the printed class."""
LEAST_DAMPING, MOST_DAMPING = 1e-4, 1e2
"""Bounds of the damping, of the printed class; here it falls from the lower one to 0."""


@dataclass(frozen=True)
class Ropa:
    """Banded, damped and curvature-corrected sweep over the K states after the front.

    Converges to the sequential trajectory; at most N rounds of K evaluations.

    Attributes:
        workers: K, states evaluated a round.
        tolerance: RMS change, in the units of `scale`, below which a state is settled; 0 is exact.
        adaptive_bandwidth: adapt w_i to the residuals; otherwise w_i = K.
        damping: adapt lambda to the gain ratio; otherwise 0.
        curvature: correct A_i along the score.
        gamma: least |cos(r, s)| for the curvature correction.
        warmup: sequential steps before the window opens (3 in the paper; 1 saves two rounds).
        max_rounds: rounds after which the rest is stepped sequentially.
        scale: unit of the tolerance: step (the deviation of one DDPM step), noise (sigma_i), absolute, or rmse (the latents'
            deviation).
    """

    workers: int = 8
    tolerance: float = 0.085
    adaptive_bandwidth: bool = True
    damping: bool = True
    curvature: bool = True
    gamma: float = 0.3
    warmup: int = 1
    max_rounds: int | None = None
    scale: Scale = "absolute"

    def __post_init__(self) -> None:
        check_options(self.workers, self.tolerance, self.max_rounds)
        check_choice("scale", self.scale, get_args(Scale))
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma: must be a cosine between 0 and 1, got {self.gamma}")
        check_warmup(self.warmup)

    def solve(self, problem: Problem) -> Run:
        """Sample one trajectory."""
        return Window(
            problem,
            self.workers,
            AdaptiveCoupling(problem, self),
            freeze_x0,
            Acceptance(problem, self.tolerance, self.scale),
            warmup=self.warmup,
            max_rounds=self.max_rounds,
        ).run()


@dataclass
class AdaptiveCoupling:
    """ROPA's A_i and its three controls, for one sample. Tables are keyed by the index i of the state that is corrected.

    Attributes:
        problem: the trajectory.
        options: the solver's.
        front: where the sweep began.
        damping: lambda.
        widths: w_i; K where there is none.
        kappas: kappa_i; 0 where there is none.
        moved: how far the last round moved x_i along s_i.
        residuals: r_i of the sweep, kept where some w_i is less than K.
        squares: |r_i|^2, of this round; `squares_before` of the last.
        expected: d_i . (lambda d_i + r_i), of this round; `expected_before` of the last.
        score: s_i of the state that was observed last.
        move: the correction that was proposed last.
    """

    problem: Problem
    options: Ropa
    front: int = 0
    damping: float = 0.0
    widths: dict[int, int] = field(default_factory=dict)
    kappas: dict[int, float] = field(default_factory=dict)
    moved: dict[int, float] = field(default_factory=dict)
    residuals: dict[int, State] = field(default_factory=dict)
    squares: dict[int, float] = field(default_factory=dict)
    squares_before: dict[int, float] = field(default_factory=dict)
    expected: dict[int, float] = field(default_factory=dict)
    expected_before: dict[int, float] = field(default_factory=dict)
    score: State | None = None
    move: State | None = None

    def begin(self, front: int) -> None:
        """Adapt the controls to the last round, and start a new one."""
        if self.options.damping:
            self._adapt_damping()
        if self.options.adaptive_bandwidth:
            self._adapt_widths()
        self.front = front
        self.squares_before, self.squares = self.squares, {}
        self.expected_before, self.expected = self.expected, {}

    def end(self) -> None:
        """Drop the sweep's tensors."""
        self.residuals.clear()
        self.score = self.move = None

    def observe(self, index: int, x: State, output: Output) -> None:
        """Take the unit score s_i, proportional to alpha_i X0 - x, and how far the last round moved x_i along it."""
        if not self.options.curvature:
            return
        self.score = None  # freed before its successor is made
        score = self.problem.predict_x0(index, x, output) * self.problem.alpha(index) - x
        self.score = score / score.norm().clamp_min(1e-12)
        if self.move is not None:
            self.moved[index] = dot(self.score, self.move)
            self.move = None

    def couple(self, index: int, correction: State) -> State:
        """Return A_i d = a_i (d - kappa s (s . d))."""
        kappa = self.kappas.get(index, 0.0) if index > self.front else 0.0
        if kappa and self.score is not None:
            correction = correction - self.score * (kappa * dot(self.score, correction))
        return correction * sigma_ratio(self.problem, index)

    def propose(self, index: int, old: State, stepped: State, new: State) -> State:
        """Return the state with its damped correction over the last w_i residuals."""
        residual = stepped - old
        self.move = None
        if self.options.curvature and self.score is not None and index - 1 > self.front:
            self._adapt_kappa(index - 1, residual)
        if any(width < self.options.workers for width in self.widths.values()):
            self.residuals[index] = residual
        self.squares[index] = dot(residual, residual)
        full = self._width(index) >= index - self.front
        move = (new - old).div_(1 + self.damping) if full else self._banded(index) / (1 + self.damping)
        self.expected[index] = self.damping * dot(move, move) + dot(move, residual)
        self.move = move
        del residual
        return new if full and not self.damping else old + move

    def _width(self, index: int) -> int:
        return self.widths.get(index, self.options.workers)

    def _banded(self, index: int) -> State:
        """Return the sum of the last w_i residuals up to x_i, each carried on by the gains after it."""
        total, factor = self.residuals[index], 1.0  # kept since the round's widths, fixed by `begin`, are not all K
        for j in range(index - 1, index - self._width(index), -1):
            factor *= sigma_ratio(self.problem, j)
            total = total + self.residuals[j] * factor
        return total

    def _adapt_widths(self) -> None:
        """Apply eq. (13) to the states of the last round."""
        if not self.squares:
            return
        mean = sum(square**0.5 for square in self.squares.values()) / len(self.squares)
        for index, square in self.squares.items():
            grow = (square**0.5 > ALPHA * mean) - (square**0.5 < BETA * mean)
            self.widths[index] = min(max(self._width(index) + grow, 1), self.options.workers)

    def _adapt_damping(self) -> None:
        """Apply takeaway 2.6 to the states that the last two rounds have in common."""
        shared = self.squares_before.keys() & self.squares.keys()
        expected = sum(self.expected_before[i] for i in shared)
        if expected <= 0:
            return
        ratio = sum(self.squares_before[i] - self.squares[i] for i in shared) / expected
        if ratio < LEAST_GAIN:
            self.damping = min(max(2 * self.damping, LEAST_DAMPING), MOST_DAMPING)
        elif ratio > GOOD_GAIN:
            self.damping = self.damping / 2 if self.damping > LEAST_DAMPING else 0.0

    def _adapt_kappa(self, index: int, residual: State) -> None:
        """Correct kappa_i by the secant along s_i between two iterates, or drop it where eq. (14) does not hold."""
        assert self.score is not None
        along, moved = dot(self.score, residual), self.moved.get(index, 0.0)
        norm = float(residual.norm())
        if norm == 0 or moved == 0 or abs(along) <= self.options.gamma * norm:
            self.kappas.pop(index, None)
            return
        kappa = self.kappas.get(index, 0.0) - along / (sigma_ratio(self.problem, index) * moved)
        self.kappas[index] = min(max(kappa, 0.0), 1.0)  # from nothing taken away along s to all


def dot(a: State, b: State) -> float:
    """Return the inner product."""
    return float(a.reshape(-1).dot(b.reshape(-1)))
