"""A solver's rounds, evaluations and error on a model of the zoo; references are sampled once."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genrun.runner.bench.results import crossing
from genrun.solvers import registry
from genrun.solvers.contract import Solution
from genrun.solvers.sequential import Sequential
from tests.bench.zoo.sampling import Pair, Sampler, rmse

SEED = 5
"""Of the captions and the noise."""


@dataclass(frozen=True)
class Setting:
    """What is sampled: a model of the zoo, its scheduler (None for its own), steps, guidance, and how many samples."""

    model: str
    steps: int
    guidance: float
    samples: int
    scheduler: str | None = None


@dataclass(frozen=True)
class Measured:
    """Means over the samples; the error is the latent RMSE in standard deviations."""

    rounds: float
    nfe: float
    error: float

    def __str__(self) -> str:
        return f"{self.rounds:.1f} / {self.nfe:.0f}"


@dataclass
class Lab:
    """The zoo's models, one loaded at a time, with the sequential samples of the setting that is being measured."""

    root: Path
    _setting: Setting | None = None
    _sampler: Sampler | None = None
    _pairs: list[Pair] = field(default_factory=list)
    _references: list[Solution] = field(default_factory=list)

    def sampler(self, setting: Setting) -> tuple[Sampler, list[Pair], list[Solution]]:
        """Load a setting: the sampler, its pairs of caption and seed, and their sequential samples."""
        if self._sampler is None or setting != self._setting:
            if not (self.root / setting.model).is_dir():
                train = f"python -m tests.bench.zoo train {setting.model} --out {self.root}"
                raise SystemExit(f"{self.root / setting.model}: not there; make it with `{train}`")
            self._sampler = Sampler(setting.model, self.root, setting.steps, setting.guidance, setting.scheduler)
            self._pairs = self._sampler.draw(setting.samples, SEED)
            self._references = self._sampler.sample(self._pairs, Sequential())
            self._setting = setting
        return self._sampler, self._pairs, self._references

    def measure(self, setting: Setting, kind: str, **options: Any) -> Measured:
        """Sample with a solver."""
        sampler, pairs, references = self.sampler(setting)
        found = sampler.sample(pairs, registry.get(kind)(**options))
        errors = [rmse(one.x, other.x) for one, other in zip(found, references, strict=True)]
        return Measured(
            statistics.fmean(each.rounds for each in found),
            statistics.fmean(each.nfe for each in found),
            statistics.fmean(errors),
        )

    def speedup(
        self, setting: Setting, kind: str, tolerances: Sequence[float], error: float, options: Mapping[str, Any]
    ) -> str:
        """Return N / rounds at an error, by interpolation between tolerances; a bound where all are better or worse."""
        swept = [self.measure(setting, kind, tolerance=each, **options) for each in tolerances]
        rounds, is_bound = crossing([(each.error, each.rounds) for each in swept], error)
        if rounds is None:
            return f"< {setting.steps / min(each.rounds for each in swept):.1f}"
        return f"{'> ' if is_bound else ''}{setting.steps / rounds:.2f}"
