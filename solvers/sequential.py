"""The pipeline's own loop as a solver, which all others must reproduce."""

from __future__ import annotations

from dataclasses import dataclass

from genrun.solvers.contract import Problem, Run
from genrun.solvers.trajectory import Trajectory


@dataclass(frozen=True)
class Sequential:
    """The reference of every other solver: a step a round, so N rounds, N evaluations, no error."""

    @property
    def workers(self) -> int:
        """K = 1."""
        return 1

    def solve(self, problem: Problem) -> Run:
        """Step through the trajectory."""
        at = Trajectory(problem)
        while not at.done:
            yield from at.step_front()
        return (yield from at.finish())
