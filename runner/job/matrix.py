"""The matrix: axes named by dotted paths, and the documents of its cells."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from genrun.registry import did_you_mean
from genrun.runner.job.errors import JobProblem
from genrun.runner.job.options import Registries, model_of
from genrun.runner.job.schema import SchedulerSpec
from genrun.runner.job.tree import Value, bare, got, put, shown
from genrun.runner.job.validate import SECTIONS

SECTION = "matrix"
MAX_CELLS = 1_000
"""Largest number of cells: each is checked on its own, which takes about a millisecond."""

MAX_LABEL = 40
"""Characters of a text that labels its value whole: it becomes the title of a row or a column."""

AXES = ("model", "prompts", "seeds", "sampling", "solver", "cache", "attention")
"""Sections that an axis may vary: those that change the pictures."""

_OPEN = ("sampling.options.", "sampling.scheduler.", "model.components.")


@dataclass(frozen=True)
class MatrixCell:
    """The document of one cell of the matrix, not checked yet.

    Attributes:
        root: the job with the cell's values in it, and without the matrix.
        axes: axis -> short label of the cell's value.
    """

    root: Value
    axes: Mapping[str, str]

    def __str__(self) -> str:
        return ", ".join(f"{axis}={label}" for axis, label in self.axes.items())


def cells_of(root: Value, registries: Registries) -> tuple[list[MatrixCell], list[JobProblem]]:
    """Lay every combination of the matrix's values over a job.

    Returns:
        The cells in the order of a nested loop, the first axis outermost; one cell when the matrix is missing or wrong; and
        what is wrong with the axes. Values are checked with their cells.
    """
    base = replace(root, data={key: value for key, value in root.data.items() if key != SECTION})
    matrix = root.get(SECTION)
    if matrix is None or not matrix.data:
        return [MatrixCell(base, {})], []
    if not isinstance(matrix.data, dict):
        return [MatrixCell(base, {})], [JobProblem(matrix.origin, SECTION, f"wanted a mapping, got {got(matrix)}.")]
    problems = [problem for axis, values in matrix.data.items() for problem in _check_axis(axis, values, registries)]
    axes = {axis: values.data for axis, values in matrix.data.items() if isinstance(values.data, list)}
    count = math.prod(len(values) for values in axes.values())
    if count > MAX_CELLS:
        message = f"{count:,} cells, more than {MAX_CELLS:,}. Split the job, or drop an axis."
        problems.append(JobProblem(matrix.key or matrix.origin, SECTION, message))
    if problems or not count:
        return [MatrixCell(base, {})], problems
    return list(_combinations(base, axes)), []


def _combinations(base: Value, axes: Mapping[str, Sequence[Value]]) -> Iterator[MatrixCell]:
    labels = {axis: _labels(values) for axis, values in axes.items()}
    # Containers before what is in them, and a kind before its options.
    order = sorted(axes, key=lambda axis: (axis.count("."), not axis.endswith("kind")))
    for choice in itertools.product(*(range(len(values)) for values in axes.values())):
        chosen = dict(zip(axes, choice, strict=True))
        root = base
        for axis in order:
            root = put(root, tuple(axis.split(".")), axes[axis][chosen[axis]])
        yield MatrixCell(root, {axis: labels[axis][index] for axis, index in chosen.items()})


def _check_axis(axis: str, values: Value, registries: Registries) -> list[JobProblem]:
    where = f"{SECTION}.{axis}"
    key = values.key or values.origin
    head = axis.partition(".")[0]
    if head not in AXES and head in SECTIONS[()].model_fields:
        return [JobProblem(key, where, f"{head} does not change the pictures, so it cannot be an axis.")]
    if head not in AXES or not axis.startswith(_OPEN):
        known = _known_paths(registries)
        if axis not in known:
            return [JobProblem(key, where, f"no such option.{did_you_mean(axis, known)}")]
    if not isinstance(values.data, list) or not values.data:
        return [JobProblem(values.origin, where, f"wanted a list of values that is not empty, got {got(values)}.")]
    return list(_repeated(where, values.data))


def _repeated(where: str, values: Sequence[Value]) -> Iterator[JobProblem]:
    # Mappings and lists cannot be hashed, and True equals 1.
    plain = [(isinstance(value.data, bool), bare(value)) for value in values]
    for index, value in enumerate(values):
        first = plain.index(plain[index])
        if first < index:
            message = f"{got(value)} is given twice, first at {values[first].origin}. Remove one of them."
            yield JobProblem(value.origin, where, message)


def _known_paths(registries: Registries) -> list[str]:
    """Return every dotted path an axis may have, apart from the open ones of scheduler and options."""
    paths = [*AXES]
    for section, model in SECTIONS.items():
        if section and section[0] in AXES and all(isinstance(part, str) for part in section):
            paths += [".".join((*map(str, section), name)) for name in model.model_fields]
    for section, registry in (("solver", registries.solvers), ("cache", registries.caches)):
        options = {name for kind in registry.names() for name in model_of(registry.get(kind)).model_fields}
        paths += [f"{section}.kind", *(f"{section}.{name}" for name in sorted(options))]
    return [*paths, *(f"sampling.scheduler.{name}" for name in SchedulerSpec.model_fields)]


def _labels(values: Sequence[Value]) -> list[str]:
    """Return short labels, all different: an equal one gets its number."""
    labels = [_label(bare(value)) for value in values]
    return [label if labels.count(label) == 1 else f"{label} #{index + 1}" for index, label in enumerate(labels)]


def _label(data: object) -> str:
    if isinstance(data, dict):
        names = ("kind", "adapter", "checkpoint", "name", "path")
        kind = next((data[name] for name in names if data.get(name)), None)
        if data.get("name"):
            data = {key: value for key, value in data.items() if key != "path"}
        # K is what papers call the number of workers.
        rest = [
            f"{'K' if key == 'workers' else key}={_label(value)}" for key, value in data.items() if value is not kind
        ]
        return " ".join([str(kind), *rest] if kind is not None else rest)
    if isinstance(data, list):
        return ",".join(_label(value) for value in data) or "none"
    return str(data) if isinstance(data, str) and len(data) <= MAX_LABEL else shown(data)
