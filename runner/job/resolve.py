"""From a job file to a resolved job: layers, matrix, checks, and the document with every default filled in.

`load` reads a job file; `check` takes one that has been read, or made; `restore` takes the document that a run stores.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from genrun.adapters.files import is_there
from genrun.adapters.parallel.support import AXES
from genrun.adapters.pipeline.call_options import ARGUMENTS
from genrun.runner.job.cell import Cell, Draft, Sources, anywhere
from genrun.runner.job.checks import (
    CHECKS,
    LAUNCH_CHECKS,
    MESH_CHECKS,
    check_keys,
    check_secrets,
    check_values,
    mark_wrong,
)
from genrun.runner.job.errors import JobProblem, Origin, raise_all
from genrun.runner.job.files import expanded, job_file, located
from genrun.runner.job.layers import apply_sets, escape, expand, fill, read_job
from genrun.runner.job.matrix import MatrixCell, cells_of
from genrun.runner.job.options import AUTO, Registries
from genrun.runner.job.plan import HOW, audit_size
from genrun.runner.job.schema import JobSpec
from genrun.runner.job.tree import Path as TreePath
from genrun.runner.job.tree import Value, bare, dotted, dress, put, section_path
from genrun.runner.job.validate import job_of

DEFAULT = "default"
STORED_AS = "job.yaml of the run"
CHANGEABLE = ("launch", "parallel")
"""Sections of a stored job that may be changed: they never change the pictures."""

FILES = (
    ("prompts", "file"),
    ("prompts", "full_info"),
    ("prompts", "coco"),
    ("model", "checkpoint"),
    ("model", "config"),
    ("model", "components", "*"),
    ("model", "loras", "*", "path"),
    ("model", "controlnet"),
    ("model", "controlnet", "*"),
    ("model", "t2i_adapter"),
    ("model", "t2i_adapter", "*"),
    ("model", "ip_adapter", "path"),
)
"""Values that may be relative to the file they are written in; * stands for any key or index."""

METRIC_FILES = ("checkpoint", "full_info", "network", "python", "reference", "weights")
"""Options of metrics that may be files or folders, relative to the file they are written in."""

OUTPUT = ("output", "dir")
"""A folder of this machine, relative to the current one: stored without `~`."""

WORKERS = ("solver", "workers")

AGAIN = (("launch", "template"), ("output", "previews", "decoder"))
"""Files that are read again, from the run's folder, whenever more workers are started: stored by their absolute paths."""


@dataclass(frozen=True)
class LoadedJob:
    """A job that has been checked.

    Attributes:
        path: the job file as the user named it.
        job: the job; with a matrix, its first cell and the matrix.
        cells: what the matrix's cells run; one when there is no matrix.
        document: the resolved job as plain data, a job file itself: defaults filled in, a value that was made from a
            secret written as `${NAME}`.
        origin: dotted path -> where the value came from, for every value of `document`.
        failing: what is wrong with cells of the matrix whose items will fail, while those of others are made.
    """

    path: Path
    job: JobSpec
    cells: tuple[Cell, ...]
    document: Mapping[str, Any]
    origin: Mapping[str, Origin]
    failing: tuple[JobProblem, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Lines to print before the job is run."""
        return tuple(f"{problem} Its items will fail; those of other cells are made." for problem in self.failing)


def load(
    path: str | Path,
    sets: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    registries: Registries | None = None,
    workers: int | None = None,
) -> LoadedJob:
    """Read a job file and check everything that can be checked without loading a model.

    Args:
        path: the job file, or the name of a packaged one.
        sets: texts of `--set` options, "a.b=value".
        environ: the environment, for `${NAME}`.
        registries: what is installed, unless told otherwise.
        workers: K where the job leaves it open, in place of what follows from its mesh.

    Raises:
        JobFileError: with every problem, sorted by place.
    """
    path = job_file(Path(path))
    registries = registries or Registries.installed()
    return check(read_job(path, environ, registries.adapters.names()), path, sets, environ, registries, workers)


def check(
    root: Value,
    path: Path,
    sets: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    registries: Registries | None = None,
    workers: int | None = None,
) -> LoadedJob:
    """Check a job that has been read, or made from a command line; arguments and errors as those of `load`."""
    registries = registries or Registries.installed()
    adapters = registries.adapters.names()
    root, problems = apply_sets(expand(root, adapters), sets, environ, adapters)
    root = expand(_named(root, path), adapters)
    # Before anything else, so that no message can hold a secret.
    raise_all(check_secrets(root))
    root = mark_wrong(_with_ranks(root))
    matrix_cells, wrong_axes = cells_of(root, registries)
    problems += [*check_values(root), *check_keys(root), *wrong_axes]
    drafts = _drafts(matrix_cells, registries, workers)
    found = [[problem for check in CHECKS for problem in check(draft)] for draft in drafts]
    # One bad cell does not keep the others from being made; but a job of which nothing can be made is refused.
    is_any_whole = not all(found)
    of_cells = _by_cell(matrix_cells, found)
    failing = tuple(sorted(problem for problem in of_cells if is_any_whole and problem.fails_items))
    raise_all([*problems, *(problem for problem in of_cells if problem not in failing)])
    cells = tuple(cell for cell in (draft.cell() for draft in drafts) if cell is not None)
    matrix = root.get("matrix")
    job = cells[0].job.model_copy(update={"matrix": {} if matrix is None else bare(matrix) or {}})
    document, origin = resolved_document(root, cells[0], path.parent)
    return LoadedJob(path, job, cells, document, MappingProxyType(origin), failing)


def _drafts(cells: Sequence[MatrixCell], registries: Registries, workers: int | None = None) -> list[Draft]:
    """Return a draft of each cell; they share what is read, and know of each other how many items they make."""
    drafts: list[Draft] = []
    sources = Sources(registries, workers=workers, items=cache(lambda: _count(drafts)))
    drafts += [Draft(each.root, each.axes, sources) for each in cells]
    return drafts


def _count(drafts: Sequence[Draft]) -> int:
    """Return how many items drafts make, with the sequential ones that an audit adds, as far as the cells are right."""
    made, job = sum(draft.count() for draft in drafts), drafts[0].job
    if job is None or job.audit is None:
        return made
    added: dict[tuple[tuple[str, str], ...], int] = {}
    for draft in drafts:
        # Cells that differ in how their items are computed share the sequential ones.
        shared = tuple(pair for pair in draft.axes.items() if pair[0].partition(".")[0] not in HOW)
        if draft.is_reference:
            added[shared] = 0
        elif draft.has_tolerance and added.get(shared) != 0:
            added[shared] = max(added.get(shared, 0), audit_size(job.audit, draft.count()))
    return made + sum(added.values())


def _named(root: Value, path: Path) -> Value:
    """Return the job with a name: the file's, when it gives none."""
    if root.get("name") is not None:
        return root
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:80] or "job"
    return replace(root, data={"name": Value(name, Origin(DEFAULT)), **root.data})


def _with_ranks(root: Value) -> Value:
    """Return the job with `launch: torchrun` where `parallel` asks for ranks and nothing says what starts them."""
    kind, sizes = root.find(("launch", "kind")), [root.find(("parallel", axis)) for axis in AXES]
    launch = root.get("launch")
    asked = [size.data for size in sizes if size is not None and type(size.data) is int and size.data > 1]
    # What else the section says may be wrong, and is told as it was written.
    if kind is not None or not asked or (launch is not None and not launch.is_mapping):
        return root
    return put(root, ("launch", "kind"), Value("torchrun", Origin(f"{DEFAULT} with parallel")))


def _by_cell(cells: Sequence[MatrixCell], found: Sequence[Sequence[JobProblem]]) -> list[JobProblem]:
    """Return the distinct problems of all cells; one that not every cell has names the first that has it."""
    first: dict[JobProblem, MatrixCell] = {}
    count: dict[JobProblem, int] = {}
    for cell, problems in zip(cells, found, strict=True):
        for problem in set(problems):
            first.setdefault(problem, cell)
            count[problem] = count.get(problem, 0) + 1
    return [
        problem
        if count[problem] == len(cells)
        else replace(problem, message=f"{problem.message} (In the cell {cell}.)")
        for problem, cell in first.items()
    ]


def restore(
    document: Mapping[str, Any],
    environ: Mapping[str, str] = os.environ,
    registries: Registries | None = None,
    sets: Sequence[str] = (),
) -> JobSpec:
    """Return the job of a stored document (of a matrix, its first cell), with its secrets from today's environment.

    Args:
        document: of a LoadedJob.
        environ: the environment.
        registries: what is installed, unless told otherwise.
        sets: texts of `--set` options, which may change how workers are started and nothing else.

    Raises:
        JobFileError: a secret is not set, the document is none of this version's, or an option changes the pictures.
    """
    registries = registries or Registries.installed()
    others = [text for text in sets if text.partition("=")[0].partition(".")[0].strip() not in CHANGEABLE]
    why = f"only {' and '.join(CHANGEABLE)} may be changed here."
    raise_all(JobProblem(Origin(f"--set {text}"), "", why) for text in others)
    stored = fill(dress(document, Origin(STORED_AS)), environ)
    root, problems = apply_sets(stored, sets, environ, registries.adapters.names())
    raise_all(problem for problem in check_secrets(root) if problem.path.startswith("launch."))
    matrix_cells, wrong_axes = cells_of(root, registries)
    drafts = _drafts(matrix_cells, registries)
    job, wrong_job = job_of(drafts[0].root)
    problems += [*check_values(root), *wrong_axes, *wrong_job]
    problems += [problem for check in LAUNCH_CHECKS for problem in check(drafts[0])]
    if sets:
        problems += [problem for draft in drafts for check in MESH_CHECKS for problem in check(draft)]
    raise_all(problems)
    return anywhere(cast(JobSpec, job), root)


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
    root = root.map_leaves(lambda value, path: _seen_from(folder, value, path))
    if root.text(WORKERS) == AUTO:  # the number that it stands for is filled in
        root = put(root, WORKERS, Value(None, root.place(WORKERS)))
    matrix = root.get("matrix")
    axes = tuple(matrix.data) if matrix is not None and matrix.is_mapping else ()
    filled = {name: _fill_in(root.get(name), value) for name, value in _defaults(cell, axes).items()}
    values = {name: filled.get(name) or root.get(name) for name in JobSpec.model_fields}
    whole = Value({name: each for name, each in values.items() if each and each.data is not None}, root.origin)
    return _storable(whole), {dotted(path): value.origin for path, value in whole.leaves()}


def _seen_from(folder: Path, value: Value, path: TreePath) -> Value:
    """Return a value that names the same file in a document that lies in `folder`."""
    if not isinstance(value.data, str):
        return value
    name, base = value.data, value.origin.folder
    file = located(name, base)
    is_metric_file = len(path) == 3 and path[0] == "score" and path[2] in METRIC_FILES
    if path == OUTPUT:
        name = str(expanded(name))
    elif path in AGAIN and (is_there(file) or path == AGAIN[0]):
        name = str(file.resolve())
    elif is_metric_file and is_there(file):
        name = str(file.absolute())
    elif base != folder and (_is_file(section_path(path)) or _is_input(section_path(path))) and is_there(file):
        name = os.path.relpath(file, folder)
    return replace(value, data=name)


def _is_file(path: TreePath) -> bool:
    """Tell whether the value at a path may name a file."""
    return any(
        len(path) == len(each) and all(wanted in ("*", part) for wanted, part in zip(each, path, strict=True))
        for each in FILES
    )


def _is_input(path: TreePath) -> bool:
    """Tell whether a value is a picture or clip of a prompt that the job lists."""
    return path[:1] == ("prompts",) and len(path) > 2 and path[2] in ARGUMENTS


def _storable(value: Value) -> Any:
    """Return plain data that may be stored: texts as a job file writes them, secrets as the variable they came from."""
    if value.source is not None:
        return value.source
    if isinstance(value.data, dict):
        return {key: _storable(child) for key, child in value.data.items()}
    if isinstance(value.data, list):
        return [_storable(child) for child in value.data]
    return escape(value.data) if isinstance(value.data, str) else value.data


def _defaults(cell: Cell, axes: tuple[str, ...]) -> dict[str, Value]:
    """Return defaults by section, without those that an axis sets or decides."""
    varied = {axis.partition(".")[0] for axis in axes}
    job = cell.job.model_dump(mode="json", exclude_none=True, exclude={"name", "prompts", "matrix"})
    adapter = cell.job.model.adapter
    decided_by = {"model": adapter, "sampling": adapter, "solver": cell.job.solver.kind, "cache": cell.job.cache.kind}
    data = {**job, "model": {**job["model"], "dtype": cell.dtype}}
    if "model" not in varied:
        data["sampling"] = dict(cell.sampling)
    else:
        del decided_by["sampling"]
    origins = {name: Origin(f"{DEFAULT} of {decided_by[name]}" if name in decided_by else DEFAULT) for name in data}
    # An adapter without defaults leaves `sampling` empty, which a stored job says.
    said = {name: each for name, each in data.items() if name not in varied and (each or name == "sampling")}
    return {name: dress(each, origins[name]) for name, each in said.items()}


def _fill_in(given: Value | None, default: Value) -> Value:
    """Return `given` over `default`, key by key; unset keys (null) take the default."""
    if given is None or given.data is None:
        return default
    if not (given.is_mapping and default.is_mapping):
        return given
    merged = {key: _fill_in(given.get(key), value) for key, value in default.data.items()}
    rest = {key: value for key, value in given.data.items() if key not in merged and value.data is not None}
    return Value({**merged, **rest}, given.origin, given.key)
