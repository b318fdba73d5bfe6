"""ROPA: a sweep of adaptive bandwidth, damped, and corrected along the score.

"ROPA: Robust Parallel Diffusion Sampling", algorithm 1, in a reading that keeps its fixed point the sequential trajectory:

- x_T is frozen and the unknowns are the later states (the printed class overwrites x_T and returns it).
- The window w_i is the order of the composition in eq. (9): a sweep over the last w_i increments, clamped at the front.
  Any w_i has the same fixed point and costs no evaluation. Start at w_i = K, since w_i = 1 is Jacobi.
- Eq. (13): w_i grows where e_i = |r_i| > alpha * mean(e), and shrinks where e_i < beta * mean(e).
- Damping: d = (r + A d)/(1 + lambda), with lambda doubled when the gain ratio of takeaway 2.6 is below 0.1 and halved above
  0.5. (The text's rule |dx|/|R| < 0.3 needs lambda > 2.3 always and never converges.)
- Curvature: eq. (15) removes the component that triggered it. Read it as A_i = a_i (I - kappa s s^T) with the unit score s
  and kappa from the secant between two iterates, only where |cos(r, s)| > gamma (eq. 14). Eq. (15) is positive definite
  and only takes away, so kappa lies in [0, 1]; negative values, which would carry more on along s, cost rounds where we
  measured.

Neither damping nor correction touches the front's step or an accepted state, so tolerance 0 is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from genrun.solvers.contract import Problem, Run
from genrun.solvers.sweep import Acceptance
from genrun.solvers.trajectory import check_options, check_warmup
from genrun.solvers.window import Window, freeze_x0

if TYPE_CHECKING:
    from torch import Tensor

ALPHA, BETA = 1.5, 0.7
LEAST_DAMPING, MOST_DAMPING = 1e-4, 1e2
MOST_CURVATURE = 1.0


@dataclass(frozen=True)
class Ropa:
    """Banded, damped and curvature-corrected sweep over the K states after the front.

    Converges to the sequential trajectory; at most N rounds of K evaluations.

    Attributes:
        workers: K, states evaluated a round.
        tolerance: RMS change in the latents' units below which a state is settled; 0 is exact.
        adaptive_bandwidth: adapt w_i to the residuals; otherwise w_i = K.
        damping: adapt lambda to the gain ratio; otherwise 0.
        curvature: correct A_i along the score.
        gamma: least |cos(r, s)| for the curvature correction.
        warmup: sequential steps before the window opens (3 in the paper; 1 saves two rounds).
        max_rounds: rounds after which the rest is stepped sequentially.
    """

    workers: int = 8
    tolerance: float = 0.085
    adaptive_bandwidth: bool = True
    damping: bool = True
    curvature: bool = True
    gamma: float = 0.3
    warmup: int = 1
    max_rounds: int | None = None

    def __post_init__(self) -> None:
        check_options(self.workers, self.tolerance, self.max_rounds)
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma: must be a cosine between 0 and 1, got {self.gamma}")
        check_warmup(self.warmup)

    def solve(self, problem: Problem) -> Run:
        """Sample one trajectory."""
        return Window(
            problem,
            self.workers,
            Geometry(problem, self),
            freeze_x0,
            Acceptance(problem, self.tolerance, absolute=True),
            warmup=self.warmup,
            max_rounds=self.max_rounds,
        ).run()


@dataclass
class Geometry:
    """ROPA's A_i and its three controls, for one sample. Tables are keyed by the state index i."""

    problem: Problem
    options: Ropa
    front: int = 0
    width: dict[int, int] = field(default_factory=dict)
    kappa: dict[int, float] = field(default_factory=dict)
    slid: dict[int, float] = field(default_factory=dict)
    damping: float = 0.0
    residuals: dict[int, Tensor] = field(default_factory=dict)
    energy: dict[int, float] = field(default_factory=dict)
    energy_before: dict[int, float] = field(default_factory=dict)
    drive: dict[int, float] = field(default_factory=dict)
    drive_before: dict[int, float] = field(default_factory=dict)
    score: Tensor | None = None
    move: Tensor | None = None

    def begin(self, front: int) -> None:
        """Adapt the controls to the last round, and start a new one."""
        if self.options.damping:
            self._adapt_damping()
        if self.options.adaptive_bandwidth:
            self._adapt_width()
        self.front = front
        self.energy_before, self.energy = self.energy, {}
        self.drive_before, self.drive = self.drive, {}

    def end(self) -> None:
        """Drop the sweep's tensors."""
        self.residuals.clear()
        self.score = self.move = None

    def observe(self, index: int, x: Tensor, output: Tensor) -> None:
        """Take the unit score s_i, proportional to alpha_i X0 - x, and how far the last round moved x_i along it."""
        if not self.options.curvature:
            return
        self.score = None  # freed before its successor is made
        score = self.problem.predict_x0(index, x, output) * self.problem.alpha(index) - x
        self.score = score / score.norm().clamp_min(1e-12)
        if self.move is not None:
            self.slid[index] = dot(self.score, self.move)
            self.move = None

    def couple(self, index: int, correction: Tensor) -> Tensor:
        """A_i d = a_i (d - kappa s (s . d))."""
        kappa = self.kappa.get(index, 0.0) if index > self.front else 0.0
        if kappa and self.score is not None:
            correction = correction - self.score * (kappa * dot(self.score, correction))
        return correction * gain(self.problem, index)

    def propose(self, index: int, old: Tensor, stepped: Tensor, new: Tensor) -> Tensor:
        """The damped correction over the last w_i increments."""
        residual = stepped - old
        self.move = None
        if self.options.curvature and self.score is not None and index - 1 > self.front:
            self._adapt_kappa(index - 1, residual)
        if any(width < self.options.workers for width in self.width.values()):
            self.residuals[index] = residual
        self.energy[index] = dot(residual, residual)
        full = self._width(index) >= index - self.front
        moved = (new - old).div_(1 + self.damping) if full else self._banded(index) / (1 + self.damping)
        self.drive[index] = self.damping * dot(moved, moved) + dot(moved, residual)
        self.move = moved
        del residual
        return new if full and not self.damping else old + moved

    def _width(self, index: int) -> int:
        return self.width.get(index, self.options.workers)

    def _banded(self, index: int) -> Tensor:
        """The last w_i residuals up to x_i, each carried on by the gains after it."""
        total, factor = self.residuals[index], 1.0  # kept since the round's widths, fixed by `begin`, are not all K
        for j in range(index - 1, index - self._width(index), -1):
            factor *= gain(self.problem, j)
            total = total + self.residuals[j] * factor
        return total

    def _adapt_width(self) -> None:
        """Eq. (13) over the states of the last round."""
        if not self.energy:
            return
        mean = sum(e**0.5 for e in self.energy.values()) / len(self.energy)
        for index, e in self.energy.items():
            grow = (e**0.5 > ALPHA * mean) - (e**0.5 < BETA * mean)
            self.width[index] = min(max(self._width(index) + grow, 1), self.options.workers)

    def _adapt_damping(self) -> None:
        """Takeaway 2.6 over the states active in both of the last rounds."""
        shared = self.energy_before.keys() & self.energy.keys()
        expected = sum(self.drive_before[i] for i in shared)
        if expected <= 0:
            return
        ratio = sum(self.energy_before[i] - self.energy[i] for i in shared) / expected
        if ratio < 0.1:
            self.damping = min(max(2 * self.damping, LEAST_DAMPING), MOST_DAMPING)
        elif ratio > 0.5:
            self.damping = self.damping / 2 if self.damping > LEAST_DAMPING else 0.0

    def _adapt_kappa(self, index: int, residual: Tensor) -> None:
        """Secant along s between two iterates of x_i: what A_i predicted wrongly is the residual after it."""
        assert self.score is not None
        along, slid = dot(self.score, residual), self.slid.get(index, 0.0)
        norm = float(residual.norm())
        if norm == 0 or slid == 0 or abs(along) <= self.options.gamma * norm:
            self.kappa.pop(index, None)
            return
        kappa = self.kappa.get(index, 0.0) - along / (gain(self.problem, index) * slid)
        self.kappa[index] = min(max(kappa, 0.0), MOST_CURVATURE)


def gain(problem: Problem, index: int) -> float:
    """a_i."""
    return problem.sigma(index + 1) / problem.sigma(index)


def dot(a: Tensor, b: Tensor) -> float:
    """Inner product."""
    return float(a.reshape(-1).dot(b.reshape(-1)))
