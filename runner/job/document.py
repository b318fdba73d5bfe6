"""The resolved job as a document that is a job file itself, and where each of its values came from."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from genrun.adapters.files import is_there
from genrun.runner.job.cell import Cell
from genrun.runner.job.environ import escape
from genrun.runner.job.places import expanded, located
from genrun.runner.job.problems import Origin
from genrun.runner.job.schema import JobSpec
from genrun.runner.job.scores import is_file_option
from genrun.runner.job.tree import Path as TreePath
from genrun.runner.job.tree import Value, dotted, dress, section_path

DEFAULT = "default"


FILES = (("prompts", "file"), ("prompts", "full_info"), ("prompts", "coco"), ("model", "checkpoint"))
"""Values that may be relative to the file they are written in."""

OUTPUT = ("output", "dir")
"""A folder of this machine, relative to the current one: stored without `~`."""

TEMPLATE = ("launch", "template")
"""A file that is read again, from the run's folder, whenever more workers are started: stored by its absolute path."""


def resolved_document(root: Value, cell: Cell, folder: Path) -> tuple[dict[str, Any], dict[str, Origin]]:
    """Fill the defaults of a checked job in.

    What the matrix varies is left to the matrix: with an axis under `solver`, no options of a solver are filled in.

    Args:
        root: the job as it was written.
        cell: its first cell.
        folder: of the job file, which relative file names of the document are relative to.

    Returns:
        The document, and the origin of each of its values by dotted path.
    """
    root = _rebased(root, folder, ())
    matrix = root.get("matrix")
    axes = tuple(matrix.data) if matrix is not None and matrix.is_mapping else ()
    filled = {name: _fill(root.get(name), value) for name, value in _defaults(cell, axes).items()}
    order = [name for name in JobSpec.model_fields if name in filled or root.get(name) is not None]
    values = {name: filled.get(name) or root.data[name] for name in order}
    whole = Value({name: value for name, value in values.items() if value.data is not None}, root.origin)
    return stored(whole), {dotted(path): value.origin for path, value in whole.leaves()}


def _rebased(value: Value, folder: Path, path: TreePath) -> Value:
    """Files that are named by a parent in another folder, or by `--set`, named as seen from `folder`."""
    if isinstance(value.data, dict):
        return replace(value, data={key: _rebased(child, folder, (*path, key)) for key, child in value.data.items()})
    if isinstance(value.data, list):
        children = enumerate(value.data)
        return replace(value, data=[_rebased(child, folder, (*path, index)) for index, child in children])
    return replace(value, data=_seen_from(folder, value, path)) if isinstance(value.data, str) else value


def _seen_from(folder: Path, value: Value, path: TreePath) -> str:
    """What names the same file in a document that lies in `folder`; a text that names none as it is."""
    base = value.origin.folder
    if path == OUTPUT:
        return str(expanded(value.data))
    file = located(value.data, base)
    if path == TEMPLATE:
        return str(file.resolve())
    if is_file_option(path) and is_there(file):
        return str(file.absolute())
    if base != folder and section_path(path) in FILES and is_there(file):
        return os.path.relpath(file, folder)
    return value.data


def stored(value: Value) -> Any:
    """Plain data that may be stored: texts as a job file writes them, secrets as the variable they came from."""
    if value.source is not None:
        return value.source
    if isinstance(value.data, dict):
        return {key: stored(child) for key, child in value.data.items()}
    if isinstance(value.data, list):
        return [stored(child) for child in value.data]
    return escape(value.data) if isinstance(value.data, str) else value.data


def _defaults(cell: Cell, axes: tuple[str, ...]) -> dict[str, Value]:
    """Defaults by section, without those that an axis sets or decides."""
    varied = {axis.partition(".")[0] for axis in axes}
    job = cell.job.model_dump(mode="json", exclude_none=True, exclude={"name", "prompts", "matrix"})
    sections = {name: dress(data, Origin(DEFAULT)) for name, data in job.items() if data and name not in varied}
    if "model" not in varied:
        model = {**job["model"], "dtype": cell.dtype}
        sections["model"] = dress(model, Origin(f"{DEFAULT} of {cell.job.model.adapter}"))
        if "sampling" not in varied:
            sampling = dress(dict(cell.sampling), Origin(f"{DEFAULT} of {cell.job.model.adapter}"))
            sections["sampling"] = sampling
    if "solver" in sections:
        sections["solver"] = dress(job["solver"], Origin(f"{DEFAULT} of {cell.job.solver.kind}"))
    if "cache" in sections:
        sections["cache"] = dress(job["cache"], Origin(f"{DEFAULT} of {cell.job.cache.kind}"))
    return sections


def _fill(given: Value | None, default: Value) -> Value:
    """`given` over `default`, key by key; unset keys (null) take the default."""
    if given is None or given.data is None:
        return default
    if not (isinstance(given.data, dict) and isinstance(default.data, dict)):
        return given
    merged = {key: _fill(given.get(key), value) for key, value in default.data.items()}
    rest = {key: value for key, value in given.data.items() if key not in merged and value.data is not None}
    return Value({**merged, **rest}, given.origin, given.key)
