"""A job file with its parents (`extends`), the options `--set`, and the environment laid over each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from genrun.adapters.files import is_there, unusable
from genrun.runner.job import yaml as source
from genrun.runner.job.environ import fill
from genrun.runner.job.places import located
from genrun.runner.job.problems import Origin, Problem, raise_all
from genrun.runner.job.schema import GateSpec
from genrun.runner.job.tree import Value, dotted, merge, put
from genrun.runner.job.wording import shown

EXTENDS = "extends"
MAX_PARENTS = 32
"""Files that may extend each other, one after the other."""
SHORTHANDS = {"solver": "kind", "cache": "kind", "launch": "kind", "sampling.scheduler": "kind", "parallel": "time"}
"""Sections that may be given as the text of one of their keys."""


def read_job(path: Path, environ: Mapping[str, str], adapters: Sequence[str]) -> Value:
    """Read a job file over its parents.

    Args:
        path: the job file; messages call it by this path.
        environ: the environment, for `${NAME}`.
        adapters: names that the shorthand `model: NAME` knows.

    Raises:
        JobFileError: a file cannot be read, is not plain YAML, or extends itself.
    """
    return _read(path, environ, adapters, seen=())


def apply_sets(
    root: Value, sets: Sequence[str], environ: Mapping[str, str], adapters: Sequence[str]
) -> tuple[Value, list[Problem]]:
    """Lay options `a.b=value` over a job, each value read as YAML.

    Returns:
        The job, and a problem for each option that changes what the matrix varies anyway.

    Raises:
        JobFileError: an option is not of that form.
    """
    parsed = [_parse_set(text) for text in sets]
    # Containers before what is in them, and a kind before its options; otherwise in the order given.
    for path, value in sorted(parsed, key=lambda pair: (len(pair[0]), pair[0][-1] != "kind")):
        root = expand(put(root, path, fill(value, environ)), adapters)
    return root, _varied(root, [(path, value.origin) for path, value in parsed])


def expand(root: Value, adapters: Sequence[str]) -> Value:
    """Write shorthands out: `solver: ropa`, `model: demo-video`, `then: [score]`; also in values of the matrix."""
    if not root.is_mapping:
        return root
    for section in ("model", *SHORTHANDS):
        root = _rewrite(root, tuple(section.split(".")), lambda value, at=section: expand_at(at, value, adapters))
    root = _rewrite(root, ("launch", "then"), _expand_steps)
    return _rewrite(root, ("matrix",), lambda matrix: _expand_matrix(matrix, adapters))


def expand_at(section: str, value: Value, adapters: Sequence[str]) -> Value:
    """Write out the shorthand of one section, if `value` is one."""
    if not isinstance(value.data, str):
        return value
    if section == "model":
        key = "adapter" if value.data in adapters else "checkpoint"
    elif section in SHORTHANDS:
        key = SHORTHANDS[section]
    else:
        return value
    return Value({key: value}, value.origin, value.key)


def set_path(name: str) -> tuple[str, ...]:
    """The path of a dotted name; the axes of a matrix and the metrics of gates, which have dots too, are one key."""
    head, _, rest = name.partition(".")
    if head == "gates" and rest:
        metric, _, rule = rest.rpartition(".")
        return (head, metric, rule) if metric and rule in GateSpec.model_fields else (head, rest)
    return (head, rest) if head == "matrix" and rest else tuple(name.split("."))


def _read(path: Path, environ: Mapping[str, str], adapters: Sequence[str], seen: tuple[Path, ...]) -> Value:
    root = fill(source.read(path, str(path)), environ)
    children = dict(root.data)
    extends = children.pop(EXTENDS, None)
    root = expand(replace(root, data=children), adapters)
    if extends is None:
        return root
    if not isinstance(extends.data, str) or not extends.data or extends.source is not None:
        wanted = extends.wrong or "wanted the name of one job file, relative to this one."
        raise_all([Problem(extends.origin, EXTENDS, wanted)])
    parent, seen = Path(os.path.normpath(located(extends.data, path.parent))), (*seen, path.resolve())
    wrong = _wrong_parent(parent, seen)
    if wrong:
        raise_all([Problem(extends.origin, EXTENDS, wrong)])
    return merge(_read(parent, environ, adapters, seen), root)


def _wrong_parent(parent: Path, seen: Sequence[Path]) -> str:
    """Why a job file cannot be extended, or ""."""
    reason = unusable(parent)
    if reason:
        return f"{shown(str(parent))} cannot be looked at: {reason}."
    if parent.resolve() in seen:
        return f"{parent} extends itself. Remove one of the `extends`."
    if len(seen) > MAX_PARENTS:
        return f"more than {MAX_PARENTS} files extend each other. Write them together."
    # A folder or a pipe is told as such where it is read.
    return "" if is_there(parent) else f"there is no file {str(parent)!r}."


def _parse_set(text: str) -> tuple[tuple[str, ...], Value]:
    origin = Origin(f"--set {text if len(text) <= 80 else text[:79] + '…'}")
    name, equals, value = text.partition("=")
    path = set_path(name.strip())
    if not equals or not all(path) or len(path) > source.MAX_DEPTH:
        raise_all([Problem(origin, "", "wanted a path and a value, such as --set solver.workers=4.")])
    return path, source.parse(value, lambda _line, _column: origin)


def _varied(root: Value, paths: Sequence[tuple[tuple[str, ...], Origin]]) -> list[Problem]:
    matrix = root.get("matrix")
    axes = list(matrix.data) if matrix is not None and isinstance(matrix.data, dict) else []
    problems = []
    for path, origin in paths:
        for axis in axes:
            axis_path = tuple(axis.split("."))
            if path[: len(axis_path)] == axis_path:
                message = f"the matrix varies {axis}, so this would change nothing. Set matrix.{axis}=[...] instead."
                problems.append(Problem(origin, dotted(path), message))
    return problems


def _rewrite(root: Value, path: tuple[str, ...], change: Callable[[Value], Value]) -> Value:
    value = root.get(path[0])
    if value is None:
        return root
    changed = change(value) if len(path) == 1 else _rewrite(value, path[1:], change)
    return root if changed is value else replace(root, data={**root.data, path[0]: changed})


def _expand_steps(steps: Value) -> Value:
    if not isinstance(steps.data, list):
        return steps
    written = [
        Value({"step": step}, step.origin, step.key) if isinstance(step.data, str) else step for step in steps.data
    ]
    return replace(steps, data=written)


def _expand_matrix(matrix: Value, adapters: Sequence[str]) -> Value:
    if not isinstance(matrix.data, dict):
        return matrix
    axes = {}
    for axis, values in matrix.data.items():
        axes[axis] = values
        if isinstance(values.data, list):
            axes[axis] = replace(values, data=[expand_at(axis, value, adapters) for value in values.data])
    return replace(matrix, data=axes)
