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
  the last two iterates of x_i: what A_i missed along s_i in the change of S_i. The sweep that finds it uses it.

Where this differs from the text:

- The initial noise x_T is kept, and the unknowns are the states after it. The printed class overwrites x_T, and returns
  what it started x_0 from.
- Not all N states are unknowns at once, but a window of K after the front. They begin as the last x0-prediction steps on,
  after `warmup` sequential steps (3 there, 1 here); the text begins with Gaussian noise. So the mean of e_i, the gain ratio
  and |dx| are those of the window, and there is no end by mean(e) < epsilon: the front is at the end.
- e_i is the residual of one step. Eq. (9) takes it over w_i steps; the class over one, too.
- The widths of a round follow the residuals of the round before it, as the sweep corrects x_i before r_{i+1} is known;
  algorithm 1 assembles a round's own system with them.
- Windows begin at w_i = K and grow to K: `initial_width` and `max_width`, 1 and 8 in the text. At 1 this is Jacobi
  iteration. Any w_i has the same fixed point, and no w_i costs an evaluation.
- lambda begins at 0 (`initial_damping`: 1e-3 in the text, 1e-2 in the class). From any of these it takes six to ten bad
  rounds to reach 0.1, and a run has about as many: 0.3 is where it acts at once. It is one for the whole window;
  `damping_scope: state` has one for each state, as algorithm 1 has. The gain ratio is of squared norms, and the class's
  has |r| in place of the predicted decrease.
- d is damped as it leaves the sweep, as the class does it. Algorithm 1 solves (J + lambda I) dx = R, which damps each step
  of the recursion once more: it took as many rounds or more where we measured.
- `damping_rule: step` is the text's other rule: from 1e-3 double lambda until |dx| / |R| < 0.3. Since |dx| is |R| / (1 +
  lambda) at least, it is above 2.3 at all times, moves a state by less than a third of its correction, and is slow.
- Eq. (15) preconditions the residual, and takes the component that triggered it away. Read as a correction of A_i it only
  takes away, so kappa lies in [0, 1]; `curvature_rule: score` is the equation's own, 1 / (1 + lambda) wherever eq. (14)
  holds. Its factor 1 / (lambda g^2 |s|^2) is left out: it would scale a residual by orders of magnitude.
- gamma is 0.3, as appendix A.3.3 recommends; the class has 0.85. The "prune factor" is nowhere defined, and is not here.
- A state is settled by its own RMS change in the units of `scale`, absolute by default; `scale: step` is the text's
  epsilon_t = tau^2 g(t)^2 d, of a change in place of a residual.

Neither damping nor correction touches the front's step or an accepted state, so that the sequential trajectory is the only
fixed point.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from genrun.solvers.contract import Problem, Run
from genrun.solvers.trajectory import check_choice, check_options, check_warmup
from genrun.solvers.window import Acceptance, Scale, Window, freeze_x0, sigma_ratio

if TYPE_CHECKING:
    from genrun.solvers.shapes import Output, State

ALPHA, BETA = 1.5, 0.7
"""Residuals, over the mean, above which a bandwidth grows and below which it shrinks: the defaults of eq. (13)."""
LEAST_GAIN, GOOD_GAIN = 0.1, 0.5
"""Gain ratios below which the damping doubles and above which it halves: those of the printed class."""
LEAST_DAMPING, MOST_DAMPING = 1e-4, 1e2
"""Bounds of the damping, of the printed class; here it falls from the lower one to 0."""
FIRST_TRIED, MOST_MOVED = 1e-3, 0.3
"""First damping of `damping_rule: step`, and the share of its residual below which a state may move: the text's."""


@dataclass(frozen=True)
class Ropa:
    """Banded, damped and curvature-corrected sweep over the K states after the front.

    Converges to the sequential trajectory; at most N rounds of K evaluations.

    Attributes:
        workers: K, states evaluated a round.
        tolerance: RMS change, in the units of `scale`, below which a state is settled; 0 is exact.
        adaptive_bandwidth: adapt w_i to the residuals; otherwise w_i stays at `initial_width`.
        damping: damp corrections by 1 + lambda; otherwise lambda is 0.
        curvature: correct A_i along the score.
        gamma: least |cos(r, s)| for the curvature correction.
        warmup: sequential steps before the window opens (3 in the paper; 1 saves two rounds).
        max_rounds: rounds after which the rest is stepped sequentially.
        scale: unit of the tolerance: step (the deviation of one DDPM step), noise (sigma_i), absolute, or rmse (the latents'
            deviation).
        initial_width: w_i that a state begins with (K unless given; 1 in the paper).
        max_width: largest w_i (K unless given; 8 in the paper).
        initial_damping: lambda that a state or window begins with; below 0.1 it hardly ever acts.
        damping_rule: gain (the gain ratio, from round to round) or step (lambda is doubled until a state moves by less than
            0.3 of its residual).
        damping_scope: window (one lambda) or state (one for each, as in the paper's algorithm).
        curvature_rule: secant (what the last two rounds measured along the score) or score (eq. 15: 1 / (1 + lambda)).
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
    initial_width: int | None = None
    max_width: int | None = None
    initial_damping: float = 0.0
    damping_rule: Literal["gain", "step"] = "gain"
    damping_scope: Literal["window", "state"] = "window"
    curvature_rule: Literal["secant", "score"] = "secant"

    def __post_init__(self) -> None:
        check_options(self.workers, self.tolerance, self.max_rounds)
        check_choice("scale", self.scale, get_args(Scale))
        check_choice("damping_rule", self.damping_rule, ("gain", "step"))
        check_choice("damping_scope", self.damping_scope, ("window", "state"))
        check_choice("curvature_rule", self.curvature_rule, ("secant", "score"))
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma: must be a cosine between 0 and 1, got {self.gamma}")
        if not 0 <= self.initial_damping <= MOST_DAMPING:
            raise ValueError(f"initial_damping: must be between 0 and {MOST_DAMPING:g}, got {self.initial_damping}")
        for name, width in (("initial_width", self.initial_width), ("max_width", self.max_width)):
            if width is not None and width < 1:
                raise ValueError(f"{name}: must be at least 1, got {width}")
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
        dampings: lambda_i; `initial_damping` where there is none. With one for the window, that is lambda_0.
        widths: w_i; `initial_width` where there is none.
        secants: of the last round, along s_i: how far x_i moved, and what was left of S_i to the new x_{i+1}.
        residuals: r_i of the sweep, kept where some w_i is less than K.
        squares: |r_i|^2, of this round; `squares_before` of the last.
        expected: d_i . (lambda d_i + r_i), of this round; `expected_before` of the last.
        score: s_i of the state that was observed last.
        moved: how far this round moves that state along it.
        move: the correction that was proposed last.
    """

    problem: Problem
    options: Ropa
    front: int = 0
    dampings: dict[int, float] = field(default_factory=dict)
    widths: dict[int, int] = field(default_factory=dict)
    secants: dict[int, tuple[float, float]] = field(default_factory=dict)
    residuals: dict[int, State] = field(default_factory=dict)
    squares: dict[int, float] = field(default_factory=dict)
    squares_before: dict[int, float] = field(default_factory=dict)
    expected: dict[int, float] = field(default_factory=dict)
    expected_before: dict[int, float] = field(default_factory=dict)
    score: State | None = None
    moved: float = 0.0
    move: State | None = None

    def begin(self, front: int) -> None:
        """Adapt the controls to the last round, and start a new one."""
        if self.options.damping and self.options.damping_rule == "gain":
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
        """Take the unit score s_i, proportional to alpha_i X0 - x, and how far this round moves x_i along it."""
        if not self.options.curvature:
            return
        self.score = None  # freed before its successor is made
        score = self.problem.predict_x0(index, x, output) * self.problem.alpha(index) - x
        self.score = score / score.norm().clamp_min(1e-12)
        self.moved = 0.0 if self.move is None else dot(self.score, self.move)
        self.move = None

    def couple(self, index: int, correction: State, old: State | None, stepped: State) -> State:
        """Return A_i d = a_i (d - kappa s (s . d))."""
        if self.score is not None and old is not None and index > self.front:
            kappa = self._kappa(index, stepped - old)
            if kappa:
                correction = correction - self.score * (kappa * dot(self.score, correction))
        return correction * sigma_ratio(self.problem, index)

    def propose(self, index: int, old: State, stepped: State, new: State, is_final: bool) -> State:
        """Return the state with its damped correction over the last w_i residuals."""
        residual = stepped - old
        if self._initial_width < self.options.workers or any(w < self.options.workers for w in self.widths.values()):
            self.residuals[index] = residual
        square = self.squares[index] = dot(residual, residual)
        is_full = is_final or self._width(index) >= index - self.front
        move = new - old if is_full else self._banded(index)
        damping = 0.0 if is_final else self._damping(index, move, square)
        if damping:
            move = move / (1 + damping)
        self.expected[index] = damping * dot(move, move) + dot(move, residual)
        if self.score is not None and index - 1 > self.front:
            self.secants[index - 1] = self.moved, dot(self.score, residual) - dot(self.score, move)
        self.move = move
        return new if is_full and not damping else old + move

    @property
    def _initial_width(self) -> int:
        return self.options.initial_width or self.options.workers

    def _width(self, index: int) -> int:
        return self.widths.get(index, self._initial_width)

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
        most = self.options.max_width or self.options.workers
        mean = sum(square**0.5 for square in self.squares.values()) / len(self.squares)
        for index, square in self.squares.items():
            grow = (square**0.5 > ALPHA * mean) - (square**0.5 < BETA * mean)
            self.widths[index] = min(max(self._width(index) + grow, 1), most)

    def _adapt_damping(self) -> None:
        """Apply takeaway 2.6 to the states that the last two rounds have in common, together or one by one."""
        shared = sorted(self.squares_before.keys() & self.squares.keys())
        for group in [shared] if self.options.damping_scope == "window" else [[index] for index in shared]:
            expected = sum(self.expected_before[i] for i in group)
            if expected <= 0:
                continue
            place = group[0] if self.options.damping_scope == "state" else 0
            damping = self.dampings.get(place, self.options.initial_damping)
            ratio = sum(self.squares_before[i] - self.squares[i] for i in group) / expected
            if ratio < LEAST_GAIN:
                self.dampings[place] = min(max(2 * damping, LEAST_DAMPING), MOST_DAMPING)
            elif ratio > GOOD_GAIN:
                self.dampings[place] = damping / 2 if damping > LEAST_DAMPING else 0.0

    def _damping(self, index: int, move: State, square: float) -> float:
        """Return lambda for the undamped move of x_i, whose residual has this squared norm."""
        if not self.options.damping:
            return 0.0
        if self.options.damping_rule == "gain":
            place = index if self.options.damping_scope == "state" else 0
            return self.dampings.get(place, self.options.initial_damping)
        damping, length, most = FIRST_TRIED, dot(move, move) ** 0.5, MOST_MOVED * square**0.5
        while length >= most * (1 + damping) and damping < MOST_DAMPING:
            damping *= 2
        return damping

    def _kappa(self, index: int, residual: State) -> float:
        """Return kappa_i for this round's residual after x_i, or 0 where eq. (14) does not hold."""
        assert self.score is not None
        along, norm = dot(self.score, residual), float(residual.norm())
        if norm == 0 or abs(along) <= self.options.gamma * norm:
            return 0.0
        if self.options.curvature_rule == "score":
            return 1 / (1 + self._damping(index, residual, norm**2))
        moved, left = self.secants.get(index, (0.0, 0.0))
        if moved == 0:
            return 0.0
        # S_i changed by `along - left` along the score while x_i moved: A_i ought to have said (1 - kappa) a_i of the move.
        kappa = 1 - (along - left) / (sigma_ratio(self.problem, index) * moved)
        return min(max(kappa, 0.0), 1.0)  # from nothing taken away along s to all


def dot(a: State, b: State) -> float:
    """Return the inner product."""
    return float(a.reshape(-1).dot(b.reshape(-1)))
