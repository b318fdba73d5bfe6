"""Rounds at a fixed error, read off a sweep of tolerances: between two measured points, never beyond them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from genrun.runner.bench.results import Result

TARGETS = (0.01, 0.02, 0.05)
"""Mean latent RMSE at which solvers are compared."""

Point = tuple[float, float]
"""(mean RMSE, mean rounds) of a cell."""


@dataclass(frozen=True)
class Crossing:
    """Where a sweep meets an error.

    Attributes:
        problem: what was sampled.
        solver: label.
        workers: K.
        error: the target.
        rounds: mean rounds there; None where the sweep does not come down to the target.
        num_steps: N.
        state: "reached" between two points, "at most" where every point of the sweep is better than the target (or the
            next worse point is too far off to interpolate: an error of 0 has no logarithm), "not reached".
    """

    problem: str
    solver: str
    workers: int
    error: float
    rounds: float | None
    num_steps: int
    state: Literal["reached", "at most", "not reached"]

    @property
    def speedup(self) -> float | None:
        """N / rounds."""
        return self.num_steps / self.rounds if self.rounds else None


def crossings(results: Iterable[Result], targets: Sequence[float] = TARGETS) -> list[Crossing]:
    """Every sweep at every target, in the order of the results. Cells without samples are left out of their sweep."""
    sweeps: dict[tuple[str, str, int], list[Result]] = {}
    for result in results:
        sweeps.setdefault((result.cell.problem, result.cell.solver, result.cell.workers), []).append(result)
    found = []
    for key, cells in sweeps.items():
        measured = sorted((cell for cell in cells if cell.samples), key=lambda each: each.cell.tolerance or 0.0)
        points = [(each.rmse, each.rounds) for each in measured]
        for target in targets:
            rounds, is_bound = crossing(points, target)
            state = "not reached" if rounds is None else "at most" if is_bound else "reached"
            found.append(Crossing(*key, target, rounds, cells[0].num_steps, state))
    return found


def crossing(points: Sequence[Point], target: float) -> tuple[float | None, bool]:
    """Fewest rounds at which a sweep meets an error, log(error) linear in the rounds between neighbours.

    Args:
        points: in the order of their tolerance.
        target: the error, above 0.

    Returns:
        The rounds, and whether they are only a bound from above; (None, False) when no point is as good as the target.
    """
    found = [_between(min(pair), max(pair), target) for pair in pairwise(points) if _brackets(pair, target)]
    if found:
        return min(found)
    good = [rounds for error, rounds in points if error <= target]
    return (min(good), True) if good else (None, False)


def _brackets(pair: tuple[Point, Point], target: float) -> bool:
    (one, _), (other, _) = pair
    return min(one, other) <= target <= max(one, other)


def _between(better: Point, worse: Point, target: float) -> tuple[float, bool]:
    (low, rounds), (high, fewer) = better, worse
    if low == high:
        return min(rounds, fewer), False
    if low == 0:
        return rounds, True
    weight = math.log(target / low) / math.log(high / low)
    return rounds + weight * (fewer - rounds), False
