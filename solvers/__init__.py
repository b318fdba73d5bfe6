"""Solvers that sample a diffusion trajectory in parallel over its steps.

A solver is a frozen dataclass of options whose `solve(problem)` is a generator: it yields the points of a round and
receives the model's outputs there. No model, no rank and no scheduler formula inside: who drives the generator decides
where the points are evaluated, and a step is always the problem's own.

Importing this package does not import torch.
"""

from typing import Any

from genrun.solvers import registry
from genrun.solvers.contract import Evaluate, NonFiniteError, Point, Problem, Solution, Solver, SolverError, drive
from genrun.solvers.problems import FlowProblem, VPProblem

__all__ = [
    "FlowProblem",
    "NonFiniteError",
    "Point",
    "Problem",
    "Solution",
    "Solver",
    "SolverError",
    "VPProblem",
    "drive",
    "solve",
]


def solve(problem: Problem, evaluate: Evaluate, solver: str = "collocation", **options: Any) -> Solution:
    """Sample one trajectory in parallel with a solver by name; options are the fields of its dataclass."""
    return drive(registry.get(solver)(**options), problem, evaluate)
