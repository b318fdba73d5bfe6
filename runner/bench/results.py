"""What was measured in a cell: a row per sample, and the means that tables and pictures show."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from genrun.runner.bench.sweep import Cell


@dataclass(frozen=True)
class Sample:
    """One sample under one solver.

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
class Result:
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

    cell: Cell
    code: str
    num_steps: int
    samples: tuple[Sample, ...]
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

    def mean(self, value: Callable[[Sample], float]) -> float:
        """Mean over the samples."""
        return statistics.fmean(map(value, self.samples))

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Result:
        """The inverse of `to_dict`. Raises TypeError or KeyError for anything else."""
        samples = (Sample(**{**sample, "fronts": tuple(sample["fronts"])}) for sample in data["samples"])
        return cls(**{**data, "cell": Cell(**data["cell"]), "samples": tuple(samples)})
