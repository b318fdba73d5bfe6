"""Loading a job file: layers, environment, matrix, checks, and the resolved document with the origin of each value."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from genrun.runner.job.cell import Cell, CellChecker, job_of
from genrun.runner.job.document import DEFAULT, resolved_document
from genrun.runner.job.environ import fill
from genrun.runner.job.launching import mesh_problems, resolved, slurm_problems
from genrun.runner.job.layers import apply_sets, expand, read_job
from genrun.runner.job.matrix import Corner, corners
from genrun.runner.job.packaged import locate
from genrun.runner.job.places import at_home
from genrun.runner.job.problems import Origin, Problem, raise_all
from genrun.runner.job.registries import Registries
from genrun.runner.job.schema import JobSpec
from genrun.runner.job.secrecy import secret_problems
from genrun.runner.job.soundness import settled
from genrun.runner.job.tree import Value, bare, dotted, dress

STORED_AS = "job.yaml of the run"


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
    failing: tuple[Problem, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to tell before the job is run, a line each."""
        return tuple(f"{problem} Its items will fail; those of other cells are made." for problem in self.failing)


def load(
    path: str | Path,
    sets: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    registries: Registries | None = None,
) -> LoadedJob:
    """Read a job file and check everything that can be checked without loading a model.

    Args:
        path: the job file, or the name of a packaged one.
        sets: texts of `--set` options, "a.b=value".
        environ: the environment, for `${NAME}`.
        registries: what is installed, unless told otherwise.

    Raises:
        JobFileError: with every problem, sorted by place.
    """
    path = locate(Path(path))
    registries = registries or Registries.installed()
    return check(read_job(path, environ, registries.adapters.names()), path, sets, environ, registries)


def check(
    root: Value,
    path: Path,
    sets: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    registries: Registries | None = None,
) -> LoadedJob:
    """Check a job that has been read, or made from a command line; arguments and errors as those of `load`."""
    registries = registries or Registries.installed()
    adapters = registries.adapters.names()
    root, problems = apply_sets(expand(root, adapters), sets, environ, adapters)
    root = expand(_named(root, path), adapters)
    # Before anything else, so that no message can hold a secret.
    raise_all(secret_problems(root))
    root, wrong_keys = settled(root)
    problems += _wrong_values(root) + wrong_keys
    all_corners, wrong = corners(root, registries)
    checker = CellChecker(registries)
    checked = [checker.check(corner) for corner in all_corners]
    found = _by_cell(all_corners, [found for _, found in checked])
    # One bad cell does not keep the others from being made; but a job of which nothing can be made is refused.
    is_any_whole = any(cell is not None and not wrong_here for cell, wrong_here in checked)
    failing = tuple(sorted(problem for problem in found if is_any_whole and problem.fails_items))
    raise_all([*problems, *wrong, *(problem for problem in found if problem not in failing)])
    cells = tuple(cell for cell, _ in checked if cell is not None)
    matrix = root.get("matrix")
    job = cells[0].job.model_copy(update={"matrix": {} if matrix is None else bare(matrix) or {}})
    document, origin = resolved_document(root, cells[0], path.parent)
    return LoadedJob(path, job, cells, document, MappingProxyType(origin), failing)


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
    raise_all(_not_launch(sets))
    stored = fill(dress(document, Origin(STORED_AS)), environ)
    root, problems = apply_sets(stored, sets, environ, registries.adapters.names())
    raise_all(problem for problem in secret_problems(root) if problem.path.startswith("launch."))
    problems += _wrong_values(root)
    all_corners, wrong = corners(root, registries)
    job, found = job_of(all_corners[0].root)
    # What the job asked for was checked when it was made; another mesh may not go with its caches.
    checker = CellChecker(registries)
    unfit = [problem for corner in all_corners if sets for problem in checker.unfit(corner)]
    raise_all(problems + wrong + found + mesh_problems(root) + slurm_problems(root) + list(dict.fromkeys(unfit)))
    job = cast(JobSpec, job)
    return at_home(job.model_copy(update={"launch": resolved(job.launch, root)}))


def _not_launch(sets: Sequence[str]) -> list[Problem]:
    """Options that would change more than how workers are started."""
    allowed = ("launch", "parallel")
    others = [text for text in sets if text.partition("=")[0].partition(".")[0].strip() not in allowed]
    return [
        Problem(Origin(f"--set {text}"), "", f"only {' and '.join(allowed)} may be changed here.") for text in others
    ]


def _named(root: Value, path: Path) -> Value:
    """The job with a name: the file's, when it gives none."""
    if root.get("name") is not None:
        return root
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")[:80] or "job"
    return replace(root, data={"name": Value(name, Origin(DEFAULT)), **root.data})


def _wrong_values(root: Value) -> list[Problem]:
    """Values that the environment could not give, and a name that means something else."""
    problems = [Problem(value.origin, dotted(path), value.wrong) for path, value in root.leaves() if value.wrong]
    name = root.get("name")
    if name is not None and name.data == "latest":
        message = "'latest' always means the newest run. Choose another name."
        problems.append(Problem(name.origin, "name", message))
    return problems


def _by_cell(all_corners: Sequence[Corner], found: Sequence[Sequence[Problem]]) -> list[Problem]:
    """The distinct problems of all cells; one that not every cell has names the first that has it."""
    first: dict[Problem, Corner] = {}
    count: dict[Problem, int] = {}
    for corner, problems in zip(all_corners, found, strict=True):
        for problem in set(problems):
            first.setdefault(problem, corner)
            count[problem] = count.get(problem, 0) + 1
    return [
        problem
        if count[problem] == len(all_corners)
        else replace(problem, message=f"{problem.message} (In the cell {first[problem]}.)")
        for problem in first
    ]
