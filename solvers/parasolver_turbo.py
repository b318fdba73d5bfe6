"""ParaSolver-Turbo: a nonlinear block of rho evaluated states, and linear equations beyond it.

"ParaSolver-Turbo: Accelerating Parallel Diffusion Integrator via Intrinsic Partially Linear Structure", algorithm 1;
anonymous authors, manuscript under double-blind review, no year given, https://openreview.net/forum?id=FmV289gGHp.
Numbers of equations and lines are the manuscript's.

The first rho states after the front are evaluated, and corrected by the sweep. Beyond them, up to a window of p, states
follow the linear solver H, eq. (7), in closed form

    H(t, s, X, X0) = (sigma_t/sigma_s) X + (alpha_t - alpha_s sigma_t/sigma_s) X0

with the x0-prediction X0 frozen at the last evaluated state, and are updated at once, each from the new state before it,
eq. (19). M sequential steps open the window, eq. (20).

Where this differs from the text:

- With G = I, as in the paper's proof, the nonlinear block would be Jacobi iteration and need N rounds, which its tables
  rule out. The block is swept with A_i = dH/dX = sigma_{i+1}/sigma_i, or with the prefix sum A_i = I.
- The stride s of line 11 is an absolute index, so line 13 is n <- s.
- A state is settled by its RMS change in the latents' units. The text's criterion has units of sigma_i; its tables come
  out in those of one step, as in the published code of ParaSolver (`scale: step`).
- With M = 0 the window begins with copies of the initial noise, as ParaDiGMS' code has it; the text says random noise.
- By default, only evaluated states are accepted (mode `exact`), so that the sequential trajectory is the only fixed
  point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from genrun.solvers.contract import Problem, Run
from genrun.solvers.trajectory import check_choice, check_options, check_warmup
from genrun.solvers.window import Acceptance, Scale, Scaled, Window, freeze_x0, identity, lag_x0


@dataclass(frozen=True)
class ParasolverTurbo:
    """Sweep over rho = K evaluated states, linear predictions beyond them.

    `exact` caps the stride to the evaluated block: converges to the sequential trajectory. `skip` is the paper's and
    approximate: linear states that stop changing are accepted without ever being evaluated, up to the window's end.

    Attributes:
        workers: rho = K, states evaluated a round.
        tolerance: delta, the RMS change, in the units of `scale`, below which a state is settled; 0 is exact. (The paper's
            is in steps: 0.03 for 50-step DDIM and DPM-Solver, 0.5 for 1000-step DDPM, 0.003 for DDIM on pixels.)
        mode: exact or skip.
        coupling: linear carries a correction through H, which is the immediate update of eq. (19) in the nonlinear block
            too; identity is the prefix sum of ParaSolver.
        window: p, states kept in `skip` mode (default 3 K, as the paper's 24 for rho = 8).
        warmup: M, sequential steps before the window opens.
        max_rounds: rounds after which the rest is stepped sequentially.
        scale: unit of the tolerance: step (the deviation of one DDPM step), noise (sigma_i), absolute, or rmse (the latents'
            deviation).
    """

    workers: int = 8
    tolerance: float = 0.085
    mode: Literal["exact", "skip"] = "exact"
    coupling: Literal["linear", "identity"] = "linear"
    window: int | None = None
    warmup: int = 1
    max_rounds: int | None = None
    scale: Scale = "absolute"

    def __post_init__(self) -> None:
        check_options(self.workers, self.tolerance, self.max_rounds)
        check_choice("scale", self.scale, get_args(Scale))
        check_choice("mode", self.mode, ("exact", "skip"))
        check_choice("coupling", self.coupling, ("linear", "identity"))
        check_warmup(self.warmup)
        if self.window is not None and self.window < self.workers:
            raise ValueError(f"window: must be at least workers = {self.workers}, got {self.window}")

    def solve(self, problem: Problem) -> Run:
        """Sample one trajectory."""
        settled = Acceptance(problem, self.tolerance, self.scale)
        coupling = lag_x0(problem) if self.coupling == "linear" else Scaled(identity)
        linear = 0 if self.mode == "exact" else self.window or 3 * self.workers
        return Window(
            problem,
            self.workers,
            coupling,
            freeze_x0,
            settled,
            warmup=self.warmup,
            linear=linear,
            max_rounds=self.max_rounds,
        ).run()
