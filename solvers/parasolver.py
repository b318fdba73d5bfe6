"""ParaSolver: the sweep of ParaDiGMS, opened by M sequential steps and extended by the last x0-prediction.

Lu, Zhu and Hou, "ParaSolver: A Hierarchical Parallel Integral Solver for Diffusion Models", ICLR 2025,
https://openreview.net/forum?id=2JihLwirxO.

With one step of the scheduler per subinterval, its system has identity blocks on the diagonal and below it, and the
update is

    x_{i+1}^{k+1} = x_f + sum_{j=f}^{i} (S_j(x_j^k, m_j^k) - x_j^k),

the sweep with A_i = I. What it adds is where states begin: M exact steps before the window opens, and beyond the window
x_{i+1} ~ q(. | x_i, X0), the scheduler's own step with the x0-prediction X0 frozen at the last evaluated state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from genrun.solvers.contract import Problem, Run
from genrun.solvers.trajectory import check_choice, check_options, check_warmup
from genrun.solvers.window import Acceptance, Scale, Scaled, Window, copy_state, freeze_x0, identity


@dataclass(frozen=True)
class Parasolver:
    """Picard iteration over the K steps after the front; the last x0-prediction is held ahead.

    Converges to the sequential trajectory; at most N rounds of K evaluations. With `warmup: 0` and `tail: copy` it is
    ParaDiGMS.

    Attributes:
        workers: p = K, states evaluated a round.
        tolerance: RMS change, in the units of `scale`, below which a state is settled; 0 is exact.
        warmup: M, sequential steps before the window opens.
        tail: how states beyond the window begin: frozen_x0 steps on with the last x0-prediction, copy repeats the state.
        max_rounds: rounds after which the rest is stepped sequentially.
        scale: unit of the tolerance: step (the deviation of one DDPM step), noise (sigma_i), absolute, or rmse (the latents'
            deviation).
    """

    workers: int = 8
    tolerance: float = 0.1
    warmup: int = 1
    tail: Literal["frozen_x0", "copy"] = "frozen_x0"
    max_rounds: int | None = None
    scale: Scale = "noise"

    def __post_init__(self) -> None:
        check_options(self.workers, self.tolerance, self.max_rounds)
        check_choice("scale", self.scale, get_args(Scale))
        check_warmup(self.warmup)
        check_choice("tail", self.tail, ("frozen_x0", "copy"))

    def solve(self, problem: Problem) -> Run:
        """Sample one trajectory."""
        return Window(
            problem,
            self.workers,
            Scaled(identity),
            freeze_x0 if self.tail == "frozen_x0" else copy_state,
            Acceptance(problem, self.tolerance, self.scale),
            warmup=self.warmup,
            max_rounds=self.max_rounds,
        ).run()
