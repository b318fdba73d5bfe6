"""Cells of a bench that nobody measured."""

from typing import Any

from genrun.runner.bench.results import PointResult, SampleResult
from genrun.runner.bench.sweep import SweepPoint


def result(
    rmse: float, rounds: int, tolerance: float | None = 0.1, solver: str = "ropa", workers: int = 8, **fields: Any
) -> PointResult:
    """A cell of two samples whose mean error and rounds are as given."""
    cell = SweepPoint("demo", solver, "ropa", workers, tolerance, {"workers": workers})
    samples = tuple(
        SampleResult(rounds + more, 60 + more, 0, "tolerance", (rounds, 50), rmse * part, 2 * rmse)
        for more, part in ((-1, 0.5), (1, 1.5))
    )
    return PointResult(cell, "0", 50, samples, **fields)
