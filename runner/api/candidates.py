"""Settings of a solver that a calibration tries, and which of them it certifies.

An item fails at a setting of the chain when that setting or a more careful one errs by more than the tolerance: failures
then grow along the chain, so that the last setting at which few enough fail may be chosen by these very items, and the
promise holds for all before it too (conformal risk control, Angelopoulos et al., 2022). Of those, the fastest is taken.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from genrun.runner.statistics import allowed_failures

GRID = (4.0, 2.0, 1.0, 0.5, 0.25, 0.125)
"""Tolerances that are tried first, as multiples of the one to be kept."""

CHAIN = (0.125, 0.25, 0.5, 0.7, 1.0, 1.4, 2.0)
"""Tolerances to be certified, as multiples of the one that did best."""

MOST_CAREFUL = 0.03
"""The multiple that a chain of several workers begins with: with eight 11 rounds of 28 (dit-v), where one takes all.

An item that goes another way at the least error failed .125 in one of 69 calibrations of zoo models. What is certified
here is still two to three times as fast as the sequential sampler.
"""


@dataclass(frozen=True)
class MeasuredSetting:
    """A setting and what became of its items.

    Attributes:
        solver: kind and every option.
        errors: latent RMSE of each item, in the order of the pairs.
        rounds: of each item.
    """

    solver: dict[str, Any]
    errors: tuple[float, ...]
    rounds: tuple[int, ...]

    @property
    def mean_rounds(self) -> float:
        """Mean over the items."""
        return statistics.fmean(self.rounds)


def failures_along(errors: Sequence[Sequence[float]], tolerance: float) -> list[int]:
    """Count for each setting the items that it, or one before it, failed.

    Args:
        errors: of each setting, from the most careful on, the error of each item.
        tolerance: the largest that is within.
    """
    failed: set[int] = set()
    counts = []
    for of_setting in errors:
        failed |= {k for k, error in enumerate(of_setting) if not error <= tolerance}
        counts.append(len(failed))
    return counts


def fastest_kept(measured: Sequence[MeasuredSetting], failures: Sequence[int], confidence: float) -> int | None:
    """Return the place of the fastest setting that is certified; None where none is.

    Args:
        measured: the chain, the most careful setting first.
        failures: as `failures_along` counts them.
        confidence: share of new items that are to be within.
    """
    allowed = allowed_failures(len(measured[0].errors), confidence)
    kept = [k for k, count in enumerate(failures) if count <= allowed]
    return min(kept, key=lambda k: measured[k].mean_rounds, default=None)


def pays(setting: MeasuredSetting, steps: int, *, is_accelerated: bool) -> bool:
    """Return True where a setting is worth its error: it takes fewer rounds than exact sampling, or cheaper ones.

    Args:
        setting: one that is certified.
        steps: rounds of the sequential sampler.
        is_accelerated: True where its evaluations have a cache or a kernel, which exact sampling goes without.
    """
    return is_accelerated or setting.mean_rounds < steps


def chain_around(best: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the settings to be certified, from the most careful on: one with tolerances around its own."""
    shares = CHAIN if best.get("workers") == 1 else (MOST_CAREFUL, *CHAIN)
    return [{**best, "tolerance": float(f"{best['tolerance'] * share:.3g}")} for share in shares]


def variants(asked: Mapping[str, Any], tolerances: Sequence[float]) -> Iterator[dict[str, Any]]:
    """Yield settings of a solver: each of its own alternatives with each tolerance."""
    from genrun.runner.job.options import Registries, stated

    kind = Registries.installed().solvers.get(str(asked["kind"]))
    solver = kind(**{name: value for name, value in asked.items() if name != "kind"})
    others = getattr(solver, "alternatives", list)()
    for each in (solver, *others):
        for tolerance in tolerances:
            yield stated(str(asked["kind"]), replace(each, tolerance=float(f"{tolerance:.3g}")))


def most_promising(found: Sequence[MeasuredSetting], tolerance: float) -> dict[str, Any]:
    """Return the setting with the fewest rounds among those that kept the tolerance; the most accurate where none did."""
    kept = [each for each in found if max(each.errors) <= tolerance]
    if not kept:
        return min(found, key=lambda each: max(each.errors)).solver
    return min(kept, key=lambda each: (each.mean_rounds, max(each.errors))).solver
