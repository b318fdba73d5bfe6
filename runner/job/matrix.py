"""The matrix: axes named by dotted paths, and the documents of its cells."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import BaseModel

from genrun.registry import did_you_mean
from genrun.runner.job.options import model_of
from genrun.runner.job.problems import Problem
from genrun.runner.job.registries import Registries, Registry
from genrun.runner.job.schema import SchedulerSpec
from genrun.runner.job.tree import Value, bare, put
from genrun.runner.job.wording import SECTIONS, got, shown

SECTION = "matrix"
MAX_CELLS = 1_000
AXES = ("model", "prompts", "seeds", "sampling", "solver", "cache", "attention")
"""What an axis may vary: what changes the pictures."""
_OPEN = ("sampling.options.", "sampling.scheduler.")


@dataclass(frozen=True)
class Corner:
    """The document of one cell of the matrix, not checked yet.

    Attributes:
        root: the job with the cell's values in it, and without the matrix.
        axes: axis -> short label of the cell's value.
    """

    root: Value
    axes: Mapping[str, str]

    def __str__(self) -> str:
        return ", ".join(f"{axis}={label}" for axis, label in self.axes.items())


def corners(root: Value, registries: Registries) -> tuple[list[Corner], list[Problem]]:
    """Lay every combination of the matrix's values over a job.

    Returns:
        The cells in the order of a nested loop, the first axis outermost; one cell when the matrix is missing or wrong; and
        what is wrong with the axes. Values are checked with their cells.
    """
    base = replace(root, data={key: value for key, value in root.data.items() if key != SECTION})
    matrix = root.get(SECTION)
    if matrix is None or not matrix.data:
        return [Corner(base, {})], []
    if not isinstance(matrix.data, dict):
        return [Corner(base, {})], [Problem(matrix.origin, SECTION, f"wanted a mapping, got {got(matrix)}.")]
    problems = [problem for axis, values in matrix.data.items() for problem in _check_axis(axis, values, registries)]
    axes = {axis: values.data for axis, values in matrix.data.items() if isinstance(values.data, list)}
    count = math.prod(len(values) for values in axes.values())
    if count > MAX_CELLS:
        message = f"{count:,} cells, more than {MAX_CELLS:,}. Split the job, or drop an axis."
        problems.append(Problem(matrix.key or matrix.origin, SECTION, message))
    if problems or not count:
        return [Corner(base, {})], problems
    return list(_cells(base, axes)), []


def _cells(base: Value, axes: Mapping[str, Sequence[Value]]) -> Iterator[Corner]:
    labels = {axis: _labels(values) for axis, values in axes.items()}
    # Containers before what is in them, and a kind before its options.
    order = sorted(axes, key=lambda axis: (axis.count("."), not axis.endswith("kind")))
    for choice in itertools.product(*(range(len(values)) for values in axes.values())):
        chosen = dict(zip(axes, choice, strict=True))
        root = base
        for axis in order:
            root = put(root, tuple(axis.split(".")), axes[axis][chosen[axis]])
        yield Corner(root, {axis: labels[axis][index] for axis, index in chosen.items()})


def _check_axis(axis: str, values: Value, registries: Registries) -> list[Problem]:
    where = f"{SECTION}.{axis}"
    key = values.key or values.origin
    head = axis.partition(".")[0]
    if head not in AXES:
        if head in SECTIONS[()].model_fields:
            return [Problem(key, where, f"{head} does not change the pictures, so it cannot be an axis.")]
        known = _known_paths(registries)
        return [Problem(key, where, f"no such option.{did_you_mean(axis, known)}")]
    if not axis.startswith(_OPEN) and axis not in _known_paths(registries):
        return [Problem(key, where, f"no such option.{did_you_mean(axis, _known_paths(registries))}")]
    if not isinstance(values.data, list) or not values.data:
        return [Problem(values.origin, where, f"wanted a list of values that is not empty, got {got(values)}.")]
    return _repeated(where, values.data)


def _repeated(where: str, values: Sequence[Value]) -> list[Problem]:
    problems = []
    for index, value in enumerate(values):
        same = next((other for other in values[:index] if _same(bare(other), bare(value))), None)
        if same is not None:
            message = f"{got(value)} is given twice, first at {same.origin}. Remove one of them."
            problems.append(Problem(value.origin, where, message))
    return problems


def _same(one: object, other: object) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _known_paths(registries: Registries) -> list[str]:
    """Every dotted path an axis may have, apart from the open ones of scheduler and options."""
    paths = [*AXES]
    for section, model in SECTIONS.items():
        if section and section[0] in AXES:
            paths += [f"{section[0]}.{name}" for name in model.model_fields]
    kinds = [*_options_of("solver", registries.solvers), *_options_of("cache", registries.caches)]
    scheduler = [f"sampling.scheduler.{name}" for name in _fields(SchedulerSpec)]
    return [*paths, *kinds, *scheduler]


def _options_of(section: str, registry: Registry) -> list[str]:
    options = {name for kind in registry.names() for name in _fields(model_of(registry.get(kind)))}
    return [f"{section}.kind", *(f"{section}.{name}" for name in sorted(options))]


def _fields(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)


def _labels(values: Sequence[Value]) -> list[str]:
    """Short labels, all different: an equal one gets its number."""
    labels = [_label(bare(value)) for value in values]
    return [label if labels.count(label) == 1 else f"{label} #{index + 1}" for index, label in enumerate(labels)]


def _label(data: object) -> str:
    if isinstance(data, dict):
        kind = data.get("kind") or data.get("adapter") or data.get("checkpoint")
        rest = [_option(key, value) for key, value in data.items() if value is not kind]
        return " ".join([str(kind), *rest] if kind is not None else rest)
    if isinstance(data, list):
        return ",".join(_label(value) for value in data)
    return str(data) if isinstance(data, str) and len(data) <= 40 else shown(data)


def _option(key: str, value: object) -> str:
    return f"K={_label(value)}" if key == "workers" else f"{key}={_label(value)}"
