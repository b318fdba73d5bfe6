"""Step-size control of `collocation`: how far apart its nodes stand, by the measured curvature of the x0-prediction.

Between nodes h steps apart the x0-prediction is interpolated, with an error of B h/8 when its slope bends by B over the gap.
Up to the length that was measured B is |x0''| h; beyond it B grows only as much as the curvature lasted from one node to the
next, since a trajectory under guidance zigzags from step to step, and what bends a slope between near nodes does not bend it
further over a long gap. Ahead of the last node the prediction is extrapolated along a share of its last slope: as much of
it as came true of the slope before. Its error is that of a held one, h/2 |x0'| in the mean, or (h^2/6 + gh/4) |x0''| after a
gap of g, whichever is less.

A step from s to t brings alpha_t - alpha_s sigma_t/sigma_s of that error into the state. The longest gap whose share stays
within its budget of the tolerance is taken; one that errs by more once both its ends are known is `too_long`. Derivatives
are divided differences of the predictions at the last four nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, inf
from typing import TYPE_CHECKING

from genrun.solvers.contract import Problem
from genrun.solvers.trajectory import rms
from genrun.solvers.tuning import TUNING, Tuning

if TYPE_CHECKING:
    from genrun.solvers.shapes import State

Prediction = tuple[int, "State"]
"""A step, and the x0-prediction there."""


@dataclass
class StepSizeController:
    """Chooses the next node, and extrapolates predictions to where there are none yet.

    Where predictions run against their states, as they do under guidance, they zigzag from node to node, and where they are
    still being corrected a slope between them is mostly their correction: none of such a slope comes true, and predictions
    are held.

    Attributes:
        problem: the trajectory.
        workers: number of nodes in a window.
        tolerance: RMS error of the final latents to aim at.
        fixed: the distance, if it is not to be measured.
        amplification: how many times an error of the state at a step may be in the picture.
        tuning: the budgets.
        final: predictions of the last two nodes that are final.
        latest: the last node that was measured, and its prediction.
        trend: change of the prediction per step up to it; None for the first node.
        trend_share: how much of the last trend came true: 0 for none of it, 1 for all.
        slope: RMS change of the prediction per step; infinite until it is known.
        bend: RMS change of the slope from one of the last two gaps to the other; infinite until it is known.
        span: steps between the middles of these gaps.
        bend_persistence: how much of the curvature before still held there: 0 for none of it, 1 for all.
        last_gap: steps in the last gap.
    """

    problem: Problem
    workers: int
    tolerance: float
    fixed: int | None = None
    amplification: Callable[[int], float] = lambda _: 1.0
    tuning: Tuning = TUNING
    final: list[Prediction] = field(default_factory=list)
    latest: Prediction | None = None
    trend: State | None = None
    trend_share: float = 0.0
    slope: float = inf
    bend: float = inf
    span: float = 1.0
    bend_persistence: float = 0.0
    last_gap: int = 1

    def next_node(self, index: int, *, ahead: bool = False) -> int:
        """Return the node after step `index`: at most N - 1, and N after that.

        Args:
            index: the last node so far.
            ahead: True when its prediction is all that is known on the way to the next.
        """
        last = self.problem.num_steps - 1
        # A single worker never has both ends of a gap evaluated when it steps over it.
        return min(index + self._gap(index, ahead or self.workers == 1), last) if index < last else last + 1

    def tolerance_share(self, index: int) -> float:
        """Return how much of the tolerance an error of the state may take up at step `index`.

        More with the signal level, which it grows with, and less where it is seen to grow by more than that.
        """
        fading = max(self.problem.alpha(index), self.tuning.least_signal) ** self.tuning.fading_power
        return fading / self.amplification(index)

    def lies_ahead(self, index: int) -> bool:
        """Return True for a step after the last node, where predictions are foretold."""
        return self.latest is not None and index > self.latest[0]

    def foretold(self, index: int) -> State:
        """Return the prediction at a step after the last node: along the trend, or that node's own."""
        assert self.latest is not None
        last, x0 = self.latest
        return (
            x0 if self.trend is None or not self.trend_share else x0 + self.trend * (self.trend_share * (index - last))
        )

    def learn_trend(self, looks: list[Prediction]) -> None:
        """Measure how much of the trend came true at nodes after the last, now that they were evaluated."""
        if self.trend is None or self.latest is None or not looks:
            return
        last, x0 = self.latest
        along = sum((index - last) * dot(each - x0, self.trend) for index, each in looks)
        # 1e-30 only keeps a slope that is none from dividing by 0.
        share = along / max(sum((index - last) ** 2 for index, _ in looks) * dot(self.trend, self.trend), 1e-30)
        self.trend_share = min(max(0.0, share), 1.0)  # in this order 0 where products overflowed, and it is NaN

    def goes_on(self, index: int, x0: State) -> bool:
        """Return True when the prediction at a node goes on as it went between the last two that are final."""
        return len(self.final) > 1 and dot(difference(*self.final), difference(self.final[-1], (index, x0))) > 0

    def measure(self, before: list[Prediction], index: int, x0: State) -> list[Prediction]:
        """Take the derivatives at a node, from up to three predictions before it; returns those to measure the next from."""
        self.latest, self.trend, nodes = (index, x0), None, [*before, (index, x0)]
        if before:
            self.trend = difference(*nodes[-2:])
            self.slope = rms(self.trend)
        if len(nodes) > 2:
            first, second, third = nodes[-3:]
            curvature = second_difference(first, second, third)
            self.span, self.last_gap = (index - first[0]) / 2, index - second[0]
            self.bend = rms(curvature) * self.span
            self.bend_persistence = persistence(second_difference(*nodes[-4:-1]), curvature) if len(nodes) > 3 else 0.0
        return self._latest(3, before, index, x0)

    def too_long(self, left: int, right: int) -> bool:
        """Return True when predictions interpolated between two nodes are too far off, by the curvature measured last."""
        if self.fixed is not None or self.bend == inf or right == left + 1:
            return False
        error = x0_weight(self.problem, left, right) * self.bend / self.span * (right - left) ** 2 / 8
        return error > self.tuning.most_between * self.tolerance * self.tolerance_share(right)

    def keep_final(self, index: int, x0: State) -> None:
        """Keep the prediction of a node that is final, for `measure` to start from."""
        self.final = self._latest(2, self.final, index, x0)

    def _latest(self, count: int, before: list[Prediction], index: int, x0: State) -> list[Prediction]:
        # Predictions cost memory: none is kept where every step is a node.
        return [*before, (index, x0)][-count:] if self.fixed != 1 else []

    def _gap(self, index: int, ahead: bool) -> int:
        """Return the longest gap from step `index` whose error stays within its budget."""
        if self.fixed is not None:
            return self.fixed
        tuning = self.tuning
        longest = ceil(tuning.window_share * self.problem.num_steps / self.workers)
        if self.bend == inf:
            longest = min(tuning.first_gap, longest)
        if self.slope == inf:
            return longest if index and self.tolerance >= tuning.loose_tolerance else 1
        longest = min(longest, self.problem.num_steps - index)
        return next((gap - 1 for gap in range(2, longest + 1) if not self._affordable(index, gap, ahead)), longest)

    def _affordable(self, index: int, gap: int, ahead: bool) -> bool:
        error, budget = self._error_ahead(gap) if ahead else self._error_between(gap)
        most = budget * self.tolerance * self.tolerance_share(index + gap)
        return x0_weight(self.problem, index, index + gap) * error <= most

    def _error_between(self, gap: int) -> tuple[float, float]:
        """Return the error of an interpolated prediction, and the budget for it."""
        longer = gap / self.span
        # Up to the measured length the slope bends in proportion; beyond it, as far as curvature lasts.
        bend = self.bend * (longer if longer < 1 else longer**self.bend_persistence)
        return bend * gap / 8, self.tuning.budget_between

    def _error_ahead(self, gap: int) -> tuple[float, float]:
        """Return the error of a prediction held or extrapolated over a gap, in the mean, and the budget for it."""
        held = self.slope * gap / 2
        # A slope that goes on in one direction would be foretold perfectly, whatever the gap: curvature bounds it.
        extrapolated = self.bend / self.span * gap * (gap / 6 + self.last_gap / 4)
        return min(held, extrapolated), self.tuning.budget_ahead


def x0_weight(problem: Problem, start: int, end: int) -> float:
    """Return the weight in x_end of an x0-prediction held from step `start` on: 0 for none, 1 at the end."""
    return abs(problem.alpha(end) - problem.alpha(start) * problem.sigma(end) / problem.sigma(start))


def has_stages(problem: Problem) -> bool:
    """Return True when steps come in stages at one noise level, as Heun's do: one left out would make it no step at all."""
    sigmas = [problem.sigma(index) for index in range(problem.num_steps)]
    return any(after >= before for before, after in pairwise(sigmas))


def stage_gain(problem: Problem, index: int) -> float:
    """Return how much larger a move of a stage's state, its prediction held, is in the next state; 1 for a step of its own.

    Heun steps from the state before the stage, by half of the output there: far, by the noise level that is left.
    """
    if index == 0 or problem.sigma(index + 1) < problem.sigma(index):
        return 1.0
    return (problem.sigma(index - 1) - problem.sigma(index)) / (2 * problem.sigma(index))


def difference(early: Prediction, late: Prediction) -> State:
    """Return the slope from one prediction to another, per step."""
    return (late[1] - early[1]).div_(late[0] - early[0])


def second_difference(first: Prediction, second: Prediction, third: Prediction) -> State:
    """Return the change of the slope over three predictions, per step."""
    return difference(second, third).sub_(difference(first, second)).div_((third[0] - first[0]) / 2)


def persistence(early: State, late: State) -> float:
    """Return how much of an earlier derivative a later one still holds: 0 for none of it, 1 for all."""
    # 1e-30 only keeps a derivative that is none from dividing by 0.
    return min(max(0.0, dot(early, late) / max(dot(early, early), 1e-30)), 1.0)


def dot(a: State, b: State) -> float:
    """Return the inner product of two states."""
    return float(a.flatten() @ b.flatten())
