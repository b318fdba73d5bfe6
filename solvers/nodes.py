"""Where to evaluate next: the distance between nodes, from the measured curvature of the x0-prediction."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, inf
from typing import TYPE_CHECKING

from genrun.solvers.contract import Problem
from genrun.solvers.trajectory import rms

if TYPE_CHECKING:
    from torch import Tensor

Known = tuple[int, "Tensor"]
"""A prediction, and the step of it."""

BUDGET = 0.05
"""Error that one gap may add to the state, as a share of the tolerance, where both its ends are evaluated."""
AHEAD_BUDGET = 0.3
"""The same where nothing is known ahead; errors of one sign die out as the trajectory contracts."""
LASTING_BUDGET = 0.15
"""The same where it does not contract, as far as is known, and the prediction is held."""
REACH = 1 / 3
"""Share of the trajectory that a window should span: longer gaps gained nothing, and cost memory."""
FIRST_GAP = 2
"""Gaps before anything is known of the trajectory, where the tolerance allows it; the first step is always taken alone."""
LOOSE = 0.05
"""Tolerance from which it does: a gap of two steps leaves an error of about 0.01."""
FADING = 0.15
"""Power of the signal level that an error of the state may grow with, where predictions run against states; else 1."""
LEAST_SIGNAL = 0.1
"""Signal level below which errors may be no smaller."""
TINY = 1e-30
"""Square of a derivative that is none."""


def x0_share(problem: Problem, start: int, end: int) -> float:
    """How much of an x0-prediction that is held from one step to another comes into the state: 0 for none, 1 at the end."""
    return abs(problem.alpha(end) - problem.alpha(start) * problem.sigma(end) / problem.sigma(start))


def persistence(early: Tensor, late: Tensor) -> float:
    """How much of an earlier derivative a later one still holds: 0 for none of it, 1 for all."""
    early, late = early.flatten(), late.flatten()
    return min(max(float(early @ late) / max(float(early @ early), TINY), 0.0), 1.0)


def difference(early: Known, late: Known) -> Tensor:
    """Slope from one prediction to another, per step."""
    return (late[1] - early[1]).div_(late[0] - early[0])


def second_difference(first: Known, second: Known, third: Known) -> Tensor:
    """Change of the slope over three predictions, per step."""
    return difference(second, third).sub_(difference(first, second)).div_((third[0] - first[0]) / 2)


@dataclass
class Spacing:
    """Chooses the nodes of one sample, and carries predictions on to where there are none yet.

    Between nodes h steps apart the x0-prediction is interpolated with an error of B h/8, when its slope bends by B over the
    gap. Up to the length that was measured B is |x0''| h; beyond it B grows only as much as the curvature lasted from one
    node to the next, since a trajectory under guidance zigzags from step to step, and what bends a slope between near nodes
    does not bend it further over a long gap. Where nothing is known ahead the prediction is held, with an error of
    h/2 |x0'| in the mean, or carried on by a trend, with one of (h^2/6 + gh/4) |x0''| at most after a gap of g. A step from
    s to t brings alpha_t - alpha_s sigma_t/sigma_s of that into the state. The longest gap whose share stays within the
    budget is taken. Derivatives are divided differences of the predictions at the last four nodes of the window.

    The trend is as much of the last slope as that held of the one before. A slope between predictions that are still being
    corrected is none to go by, unless they run along with their states.

    Attributes:
        problem: the trajectory.
        workers: how many nodes a window holds.
        tolerance: RMS error of the final latents to aim at.
        fixed: the distance, if it is not to be measured.
        lasting: whether errors of the state last: predictions are not known to run against it.
        steady: whether there may be a trend.
        settled: predictions of the last two nodes that are final, by step.
        trend: change of the prediction per step that is likely to go on; None for none.
        slope: RMS change of the prediction per step; infinite until it is known.
        bend: RMS change of the slope from one of the last two gaps to the other; infinite until it is known.
        span: steps between the middles of these gaps.
        bends_on: how much of the curvature before still held there: 0 for none of it, 1 for all.
        last_gap: steps in the last gap.
    """

    problem: Problem
    workers: int
    tolerance: float
    fixed: int | None = None
    lasting: bool = True
    steady: bool = False
    settled: list[Known] = field(default_factory=list)
    trend: Tensor | None = None
    slope: float = inf
    bend: float = inf
    span: float = 1.0
    bends_on: float = 0.0
    last_gap: int = 1

    def settle(self, index: int, x0: Tensor) -> None:
        """Keep the prediction of a node that is final."""
        self.settled = self._last(2, self.settled, index, x0)

    def follow(self, before: list[Known], index: int, x0: Tensor) -> list[Known]:
        """Learn how the predictions run up to a node, from up to three before it; returns those to go on from."""
        self.trend, nodes = None, [*before, (index, x0)]
        if len(nodes) > 2:
            first, second, third = nodes[-3:]
            curvature = second_difference(first, second, third)
            self.span, self.last_gap = (index - first[0]) / 2, index - second[0]
            self.slope, self.bend = rms(difference(second, third)), rms(curvature) * self.span
            self.bends_on = persistence(second_difference(*nodes[-4:-1]), curvature) if len(nodes) > 3 else 0.0
            if self.steady and (lasts := persistence(difference(first, second), difference(second, third))):
                self.trend = difference(second, third).mul_(lasts)
        return self._last(3, before, index, x0)

    def carried(self, x0: Tensor, steps: int) -> Tensor:
        """A prediction carried on over so many steps."""
        return x0 if self.trend is None else x0 + self.trend * steps

    def allowance(self, index: int) -> float:
        """How much of the tolerance an error of the state may take up at a step.

        What the prediction does not undo is an error of the picture's content, which grows with the signal level.
        """
        return max(self.problem.alpha(index), LEAST_SIGNAL) ** (1.0 if self.lasting else FADING)

    def after(self, index: int, ahead: bool = False) -> int:
        """The node after `index`: at most N - 1, and N after that; `ahead` where nothing is known on the way to it."""
        last = self.problem.num_steps - 1
        return min(index + self._gap(index, ahead or self.workers == 1), last) if index < last else last + 1

    def _last(self, count: int, before: list[Known], index: int, x0: Tensor) -> list[Known]:
        """Nothing where the distance is not to be measured: predictions cost memory."""
        return [*before, (index, x0)][-count:] if self.fixed is None else []

    def _gap(self, index: int, ahead: bool) -> int:
        if self.fixed is not None:
            return self.fixed
        longest = ceil(REACH * self.problem.num_steps / self.workers)
        if self.slope == inf:
            return min(FIRST_GAP, longest) if index and self.tolerance >= LOOSE else 1
        longest = min(longest, self.problem.num_steps - index)
        return next((gap - 1 for gap in range(2, longest + 1) if not self._affordable(index, gap, ahead)), longest)

    def _affordable(self, index: int, gap: int, ahead: bool) -> bool:
        error, budget = self._error_ahead(gap) if ahead else (self._bend_between(gap) * gap / 8, BUDGET)
        return x0_share(self.problem, index, index + gap) * error <= budget * self.tolerance * self.allowance(
            index + gap
        )

    def _error_ahead(self, gap: int) -> tuple[float, float]:
        """Error of the prediction where nothing is known, in the mean over a gap; and the budget for it."""
        held = self.slope * gap / 2
        if not self.steady:
            return held, LASTING_BUDGET if self.lasting else AHEAD_BUDGET
        return min(held, self.bend / self.span * gap * (gap / 6 + self.last_gap / 4)), AHEAD_BUDGET

    def _bend_between(self, gap: int) -> float:
        """How much the slope may change over a gap between nodes."""
        longer = gap / self.span
        return self.bend * (longer if longer < 1 else longer**self.bends_on)
