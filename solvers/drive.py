"""Run a solver where the caller's own function evaluates the points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from genrun.solvers import registry
from genrun.solvers.contract import Point, Problem, Solution, Solver

if TYPE_CHECKING:
    from torch import Tensor

Evaluate = Callable[[Sequence[Point]], "list[Tensor]"]


def drive(solver: Solver, problem: Problem, evaluate: Evaluate) -> Solution:
    """Run `solver` on `problem`, calling `evaluate(points)` once a round for the model outputs at the points."""
    run = solver.solve(problem)
    points = next(run)
    try:
        while True:
            outputs = list(evaluate(points))
            del points
            points = run.send(outputs)
    except StopIteration as stop:
        return stop.value


def solve(problem: Problem, evaluate: Evaluate, solver: str = "collocation", **options: Any) -> Solution:
    """Sample one trajectory in parallel with a solver by name; options are the fields of its dataclass."""
    return drive(registry.get(solver)(**options), problem, evaluate)
