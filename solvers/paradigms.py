"""ParaDiGMS: Picard iteration over a sliding window.

Shih, Belkhale, Ermon, Sadigh and Anari, "Parallel Sampling of Diffusion Models", NeurIPS 2023,
https://arxiv.org/abs/2305.16317, algorithm 1:

    x_{i+1}^{k+1} = x_f + sum_{j=f}^{i} (S_j(x_j^k, m_j^k) - x_j^k),

which is the sweep with A_i = I. Beyond the window the last state is copied.

The published code sets the last alpha to 1 and so follows another DDIM than diffusers' when set_alpha_to_one is False; here
S is the pipeline's scheduler itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from genrun.solvers.contract import Problem, Run
from genrun.solvers.trajectory import check_choice, check_options
from genrun.solvers.window import Acceptance, Scale, Scaled, Window, copy_state, identity


@dataclass(frozen=True)
class Paradigms:
    """Picard iteration over the K steps after the front; the last state is copied ahead.

    Converges to the sequential trajectory; at most N rounds of K evaluations.

    Attributes:
        workers: K, states evaluated a round.
        tolerance: RMS change, in the units of `scale`, below which a state is settled; 0 is exact.
        max_rounds: rounds after which the rest is stepped sequentially.
        scale: unit of the tolerance: step (the deviation of one DDPM step), noise (sigma_i), absolute, or rmse (the latents'
            deviation).
    """

    workers: int = 8
    tolerance: float = 0.07
    max_rounds: int | None = None
    scale: Scale = "noise"

    def __post_init__(self) -> None:
        check_options(self.workers, self.tolerance, self.max_rounds)
        check_choice("scale", self.scale, get_args(Scale))

    def solve(self, problem: Problem) -> Run:
        """Sample one trajectory."""
        settled = Acceptance(problem, self.tolerance, self.scale)
        return Window(problem, self.workers, Scaled(identity), copy_state, settled, max_rounds=self.max_rounds).run()
