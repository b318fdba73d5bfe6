"""The grid of a bench: solvers with their options, times numbers of workers, times tolerances."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from genrun.runner.errors import UsageError
from genrun.runner.job import yaml as source
from genrun.runner.job.errors import JobProblem, Origin, raise_all
from genrun.runner.job.options import DEFAULT_SOLVER, RegistryLike, kind_options
from genrun.runner.job.tree import Value, unknown

REFERENCE, NO_CACHE = "sequential", "none"
SWEPT = ("workers", "tolerance")
FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of a solver's default tolerance that are swept where none are asked for."""
TOLERANCES = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Tolerances that are swept for a solver whose default is no number above 0."""


@dataclass(frozen=True)
class Variant:
    """A solver with the options that were asked for.

    Attributes:
        kind: its name.
        label: the name and those options, such as "ropa curvature=false".
        options: every option but workers and tolerance.
        workers: its default K; None for a solver that has no such option.
        tolerance: its default tolerance; None for a solver that has no such option.
        cache: kind and options of a cache on top; empty for none.
    """

    kind: str
    label: str
    options: Mapping[str, Any]
    workers: int | None
    tolerance: float | None
    cache: Mapping[str, Any] = field(default_factory=dict)

    def tolerances(self, wanted: Sequence[float] | None) -> tuple[float | None, ...]:
        """Return the tolerances: as wanted, or factors of the default; one None for a solver without tolerance."""
        if self.tolerance is None:
            return (None,)
        if wanted is not None:
            return tuple(sorted(set(wanted)))
        if self.tolerance <= 0:
            return TOLERANCES
        return tuple(float(f"{self.tolerance * factor:.3g}") for factor in FACTORS)


@dataclass(frozen=True)
class SweepPoint:
    """A point of a sweep.

    Attributes:
        problem: name of the model or the closed-form problem.
        solver: label of the variant.
        kind: name of the solver.
        workers: K.
        tolerance: of the solver, or None where it has none.
        options: every option of the solver's dataclass.
        cache: kind and options of a cache on top; empty for none.
    """

    problem: str
    solver: str
    kind: str
    workers: int
    tolerance: float | None
    options: Mapping[str, Any]
    cache: Mapping[str, Any] = field(default_factory=dict)


def sweep(
    problem: str,
    variants: Iterable[Variant],
    workers: Sequence[int],
    tolerances: Mapping[str, Sequence[float]],
) -> Iterator[SweepPoint]:
    """Yield every cell of one problem.

    Args:
        problem: its name.
        variants: what to run; the sequential reference is not among the cells.
        workers: values of K; a solver without workers has one point, with K = 1.
        tolerances: sweeps by name of the solver, "" for the others.
    """
    for variant in variants:
        wanted = tolerances.get(variant.kind, tolerances.get(""))
        for count in workers if variant.workers is not None else (1,):
            for tolerance in variant.tolerances(wanted):
                swept = {"workers": count if variant.workers is not None else None, "tolerance": tolerance}
                options = {**variant.options, **{name: value for name, value in swept.items() if value is not None}}
                yield SweepPoint(problem, variant.label, variant.kind, count, tolerance, options, variant.cache)


def parse_solvers(text: str, registry: RegistryLike) -> tuple[Variant, ...]:
    """Read `all`, or names with commas, each with options as in `ropa:curvature=false:warmup=2`.

    Raises:
        UsageError: an unknown solver or option, or a wrong value.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if words == ["all"]:
        words = [name for name in registry.names() if name != REFERENCE]
    if not words:
        raise UsageError(f"--solvers {text}: names no solver.", remedy="--solvers all")
    problems: list[JobProblem] = []
    found = [_variant(word, registry, problems) for word in words if word != REFERENCE]
    raise_all(problems)
    variants = [each for each in found if each is not None]
    labels = [variant.label for variant in variants]
    repeated = next((label for label in labels if labels.count(label) > 1), None)
    if repeated is not None:
        raise UsageError(f"--solvers {text}: {repeated} is given twice. Remove one of them.")
    return tuple(variants)


def with_caches(variants: Sequence[Variant], texts: Iterable[str], registry: RegistryLike) -> tuple[Variant, ...]:
    """Add each variant and the sequential sampler under each cache, written as `first_block:threshold=0.1`.

    Raises:
        UsageError, JobFileError: an unknown cache or option, or a wrong value.
    """
    found, wrong = list(variants), list[JobProblem]()
    for text in texts:
        kind, *pairs = text.split(":")
        if kind not in registry.names() or kind == NO_CACHE:
            raise UsageError(f"--cache {text}: {unknown(kind, registry.names()[1:], 'cache')}")
        origin = Origin(f"--cache {text}")
        given = dict(_pair(pair, text, "--cache") for pair in pairs)
        root = Value({"cache": Value({"kind": Value(kind, origin), **given}, origin)}, origin)
        cache, problems = kind_options(root, registry, "cache", NO_CACHE)
        wrong += problems
        if cache is None:
            continue
        name = " ".join([kind, *pairs])
        alone = Variant(REFERENCE, REFERENCE, {}, None, None)
        found += [replace(each, label=f"{each.label} + {name}", cache=cache) for each in (alone, *variants)]
    raise_all(wrong)
    return tuple(found)


def parse_workers(text: str) -> tuple[int, ...]:
    """Read `1,2,4,8`. Raises UsageError."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 0 < int(word) <= 10_000 for word in words):
        raise UsageError(f"--workers {text}: wanted whole numbers of at least 1, such as 1,2,4,8.")
    return tuple(sorted({int(word) for word in words}))


def parse_tolerances(texts: Iterable[str], variants: Sequence[Variant]) -> dict[str, tuple[float, ...]]:
    """Read `0.02,0.05` (for all), or `ropa=0.02,0.05`. Raises UsageError."""
    found: dict[str, tuple[float, ...]] = {}
    kinds = [variant.kind for variant in variants]
    for text in texts:
        name, equals, values = text.rpartition("=")
        name = name.strip()
        if equals and name not in kinds:
            raise UsageError(f"--tolerances {text}: {unknown(name, kinds, 'solver of this bench')}")
        if name in found:
            raise UsageError(f"--tolerances {text}: {name or 'all solvers'} given twice. Use commas.")
        found[name] = tuple(_number(word, text) for word in values.split(","))
    return found


def _number(word: str, text: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise UsageError(f"--tolerances {text}: wanted numbers that are finite and not negative, such as 0.02,0.05.")
    return value


def _variant(word: str, registry: RegistryLike, wrong: list[JobProblem]) -> Variant | None:
    """Return a solver with its options; None for one with wrong ones, which `wrong` is told."""
    kind, *pairs = word.split(":")
    if kind not in registry.names():
        raise UsageError(f"--solvers {word}: {unknown(kind, registry.names(), 'solver')}")
    given = dict(_pair(pair, word) for pair in pairs)
    swept = [name for name in SWEPT if name in given]
    if swept:
        raise UsageError(f"--solvers {word}: {swept[0]} is swept.", remedy="Use --workers and --tolerances.")
    origin = Origin(f"--solvers {word}")
    root = Value({"solver": Value({"kind": Value(kind, origin), **given}, origin)}, origin)
    resolved, problems = kind_options(root, registry, "solver", DEFAULT_SOLVER)
    wrong += problems
    if resolved is None:
        return None
    del resolved["kind"]
    names = [field.name for field in dataclasses.fields(registry.get(kind))]
    return Variant(
        kind,
        " ".join([kind, *pairs]),
        {name: value for name, value in resolved.items() if name not in SWEPT},
        resolved.get("workers") if "workers" in names else None,
        resolved.get("tolerance", 0.0) if "tolerance" in names else None,
    )


def _pair(text: str, word: str, flag: str = "--solvers") -> tuple[str, Value]:
    name, equals, value = text.partition("=")
    origin = Origin(f"{flag} {word}")
    if not equals or not name:
        raise UsageError(f"{flag} {word}: wanted NAME:OPTION=VALUE, such as ropa:curvature=false.")
    return name, source.parse(value, lambda _line, _column: origin)
