"""Where to evaluate next: the distance between nodes, from the measured curvature of the x0-prediction."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, inf
from typing import TYPE_CHECKING

from genrun.solvers.contract import Problem
from genrun.solvers.trajectory import rms

if TYPE_CHECKING:
    from torch import Tensor

BUDGET = 0.06
"""Error that one gap may add to the state, as a share of the tolerance, where both its ends are evaluated."""
HELD_BUDGET = 0.3
"""The same where the prediction is held over the gap; errors of one sign die out as the trajectory contracts."""
REACH = 1 / 3
"""Share of the trajectory that a window should span: longer gaps gained nothing, and cost memory."""
FIRST_GAP = 2
"""The first gaps, before anything is known of the trajectory, where the tolerance allows it."""
LOOSE = 0.05
"""Tolerance from which it does: a first gap of two steps leaves an error of about 0.01."""


def x0_share(problem: Problem, start: int, end: int) -> float:
    """How much of an x0-prediction that is held from one step to another comes into the state: 0 for none, 1 at the end."""
    return abs(problem.alpha(end) - problem.alpha(start) * problem.sigma(end) / problem.sigma(start))


@dataclass
class Spacing:
    """Chooses the nodes of one sample.

    Between nodes h steps apart the x0-prediction is interpolated with an error of h^2/8 |x0''|, or held where nothing is
    known ahead, with one of h/2 |x0'|; a step from s to t brings alpha_t - alpha_s sigma_t/sigma_s of it into the state.
    The longest gap whose share stays within the budget is taken. Derivatives are divided differences of the predictions at
    the last three nodes of the window.

    Attributes:
        problem: the trajectory.
        workers: how many nodes a window holds.
        tolerance: RMS error of the final latents to aim at.
        fixed: the distance, if it is not to be measured.
        settled: predictions of the last two nodes that are final, by step.
        slope: RMS change of the prediction per step; infinite until it is known.
        curvature: its RMS second derivative, per step squared.
    """

    problem: Problem
    workers: int
    tolerance: float
    fixed: int | None = None
    settled: list[tuple[int, Tensor]] = field(default_factory=list)
    slope: float = inf
    curvature: float = inf

    def settle(self, index: int, x0: Tensor) -> None:
        """Keep the prediction of a node that is final."""
        self.settled = self._last_two(self.settled, index, x0)

    def follow(self, before: list[tuple[int, Tensor]], index: int, x0: Tensor) -> list[tuple[int, Tensor]]:
        """Learn how the predictions run up to a node, from the two nodes before it; returns the two to go on from."""
        if len(before) == 2:
            (a, at_a), (b, at_b) = before
            late = (x0 - at_b) / (index - b)
            self.slope = rms(late)
            self.curvature = 2 * rms(late - (at_b - at_a) / (b - a)) / (index - a)
        return self._last_two(before, index, x0)

    def _last_two(self, before: list[tuple[int, Tensor]], index: int, x0: Tensor) -> list[tuple[int, Tensor]]:
        """Nothing where the distance is not to be measured: predictions cost memory."""
        return [*before, (index, x0)][-2:] if self.fixed is None else []

    def after(self, index: int, held: bool = False) -> int:
        """The node after `index`: at most N - 1, and N after that; `held` where the way to it counts as it is."""
        last = self.problem.num_steps - 1
        return min(index + self._gap(index, held), last) if index < last else last + 1

    def _gap(self, index: int, held: bool) -> int:
        if self.fixed is not None:
            return self.fixed
        longest = ceil(REACH * self.problem.num_steps / self.workers)
        if self.slope == inf:
            return min(FIRST_GAP, longest) if self.tolerance >= LOOSE else 1
        longest = min(longest, self.problem.num_steps - index)
        held = held or self.workers == 1
        return next((gap - 1 for gap in range(2, longest + 1) if not self._affordable(index, gap, held)), longest)

    def _affordable(self, index: int, gap: int, held: bool) -> bool:
        share = x0_share(self.problem, index, index + gap)
        if held:
            return share * self.slope * gap / 2 <= HELD_BUDGET * self.tolerance
        return share * self.curvature * gap**2 / 8 <= BUDGET * self.tolerance
