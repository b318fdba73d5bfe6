"""Results of a bench: each cell by its samples, and the rounds that each sweep of tolerances takes at an equal error."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

from genrun.runner.bench.sweep import SweepPoint

# docs/papers.md compares with published speedups at the last two.
TARGETS = (0.01, 0.02, 0.05)
"""Mean latent RMSE at which solvers are compared."""

Point = tuple[float, float]
"""(mean RMSE, mean rounds) of a cell."""


@dataclass(frozen=True)
class SampleResult:
    """A sample under a solver.

    Attributes:
        rounds: parallel model calls.
        nfe: model evaluations.
        skipped: states accepted without ever being evaluated.
        converged_by: "tolerance" or "sequential".
        fronts: the front after each round.
        rmse: of the final latents to the sequential ones, in their standard deviations.
        worst_block: the same of the worst block of 8 x 8 places; None for states without places.
        blocks: evaluations of transformer blocks; 0 where the model has none.
    """

    rounds: int
    nfe: int
    skipped: int
    converged_by: str
    fronts: tuple[int, ...]
    rmse: float
    worst_block: float | None
    blocks: float = 0.0


@dataclass(frozen=True)
class PointResult:
    """A cell that was measured.

    Attributes:
        cell: what was measured.
        code: hash of the solver's source.
        num_steps: N.
        samples: one per prompt and seed; empty when the solver refused the cell or failed on a sample.
        error: why there are no samples, or "".
        elapsed_s: of all pipeline calls.
        calls: parallel model calls in them (with batches fewer than the samples' rounds together).
        evaluation_s: time per model call of the sequential sampler, in the same process.
    """

    cell: SweepPoint
    code: str
    num_steps: int
    samples: tuple[SampleResult, ...]
    error: str = ""
    elapsed_s: float = 0.0
    calls: int = 0
    evaluation_s: float = 0.0

    @property
    def rounds(self) -> float:
        """Mean rounds."""
        return self.mean(lambda sample: sample.rounds)

    @property
    def nfe(self) -> float:
        """Mean model evaluations."""
        return self.mean(lambda sample: sample.nfe)

    @property
    def blocks(self) -> float:
        """Mean evaluations of transformer blocks."""
        return self.mean(lambda sample: sample.blocks)

    @property
    def skipped(self) -> float:
        """Mean states that were accepted without being evaluated."""
        return self.mean(lambda sample: sample.skipped)

    @property
    def speedup(self) -> float:
        """N / mean rounds."""
        return self.num_steps / self.rounds

    @property
    def rmse(self) -> float:
        """Mean latent RMSE."""
        return self.mean(lambda sample: sample.rmse)

    @property
    def rmse_median(self) -> float:
        """Median latent RMSE."""
        return statistics.median(sample.rmse for sample in self.samples)

    @property
    def rmse_max(self) -> float:
        """Largest latent RMSE."""
        return max(sample.rmse for sample in self.samples)

    @property
    def worst_block(self) -> float | None:
        """RMSE of the worst block of any sample."""
        blocks = [sample.worst_block for sample in self.samples if sample.worst_block is not None]
        return max(blocks, default=None)

    @property
    def round_ratio(self) -> float | None:
        """Time per round, in times per evaluation of the sequential sampler; None where neither was timed."""
        if not self.calls or not self.evaluation_s:
            return None
        return self.elapsed_s / self.calls / self.evaluation_s

    def mean(self, value: Callable[[SampleResult], float]) -> float:
        """Return the mean over the samples."""
        return statistics.fmean(map(value, self.samples))

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PointResult:
        """Make a result of what `to_dict` returned. Raises TypeError or KeyError for anything else."""
        samples = (SampleResult(**{**sample, "fronts": tuple(sample["fronts"])}) for sample in data["samples"])
        return cls(**{**data, "cell": SweepPoint(**data["cell"]), "samples": tuple(samples)})


@dataclass(frozen=True)
class Crossing:
    """The rounds at which a sweep meets an error.

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
        """Sequential steps over rounds."""
        return self.num_steps / self.rounds if self.rounds else None


def crossings(results: Iterable[PointResult], targets: Sequence[float] = TARGETS) -> list[Crossing]:
    """Read every sweep at every target, in the order of the results; cells without samples are left out of their sweep."""
    sweeps: dict[tuple[str, str, int], list[PointResult]] = {}
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
    """Find the fewest rounds at which a sweep meets an error, log(error) linear in the rounds between neighbours.

    Nothing is extrapolated beyond the measured points.

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
