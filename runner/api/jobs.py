"""Jobs as Python has them: a file, YAML text or a mapping; checked, planned, sized, and as their runs were begun."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.api.calls import QUIET, Listener, checked
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from genrun.runner.forecast import Cost, Prediction
    from genrun.runner.job import Cell, LoadedJob
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.memory.estimate import MemoryEstimate, MemorySubject
    from genrun.runner.parallel.mesh import Mesh
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.submit.resume import SubmittedJob


AnyJob = str | os.PathLike[str] | Mapping[str, Any]
"""A job file, the name of a packaged one, YAML text (a text with a line break), or a mapping."""

IN_PYTHON = "job.yaml"
"""Name of a file in the current folder that stands for a job without a file."""

TEXT = Path("-")
"""Stands for a job without a file where its parents are looked for: a file `job.yaml` may be one of them."""


class NamedText(str):
    """YAML text that came from somewhere with a name.

    Attributes:
        source: what messages call it, with its lines.
    """

    source = "<stdin>"


@checked
def load_job(job: AnyJob, sets: Sequence[str] = (), workers: int | None = None) -> LoadedJob:
    """Read a job and check everything that can be checked without loading a model.

    Args:
        job: a job file, YAML text, or a mapping with the keys of a job file. Files that the latter two name are relative
            to the current folder, and their `name` is "job" unless they say one.
        sets: changes of the job, as texts `a.b=value`.
        workers: K where the job leaves it open, in place of what follows from its mesh.

    Raises:
        JobFileError: with every problem, sorted by place.
        TypeError: it is none of these, or holds what YAML cannot.
    """
    from genrun.runner.api.config import read_config
    from genrun.runner.job.errors import Origin
    from genrun.runner.job.files import job_file
    from genrun.runner.job.layers import fill, over_parents, read_job
    from genrun.runner.job.options import Registries
    from genrun.runner.job.resolve import check
    from genrun.runner.job.tree import dress
    from genrun.runner.job.yaml import parse

    path, registries = Path(IN_PYTHON), Registries.installed()
    adapters = registries.adapters.names()
    if isinstance(job, Mapping):
        try:
            plain = _plain(job)
        except RecursionError as error:
            raise TypeError("the job holds itself, or is nested too deep.") from error
        root = over_parents(fill(dress(plain, Origin("job")), os.environ), TEXT, os.environ, adapters)
    elif isinstance(job, str) and "\n" in job:
        name = job.source if isinstance(job, NamedText) else "job"
        root = parse(job, lambda line, column: Origin(name, line, column))
        if not root.is_mapping:
            raise UsageError("a job is a mapping, such as `model: demo-video` and further lines.")
        root = over_parents(fill(root, os.environ), TEXT, os.environ, adapters)
    else:
        path = job_file(Path(job))
        root = read_job(path, os.environ, adapters)
    return check(read_config().under(root, adapters), path, sets, os.environ, registries, workers)


def with_runs(sets: Sequence[str], runs: str | os.PathLike[str] | None) -> Sequence[str]:
    """Return changes of a job, with another folder of runs among them where one is given."""
    return sets if runs is None else (*sets, f"output.dir={json.dumps(os.fspath(runs))}")


@checked
def plan(job: AnyJob | LoadedJob, *, sets: Sequence[str] = ()) -> list[WorkItem]:
    """Return the items of a job: each prompt with each seed in each cell of the matrix.

    Args:
        job: a job file, YAML text, a mapping, or a job that was loaded.
        sets: changes of the job, as texts `a.b=value`.

    Raises:
        JobFileError: with every problem of the job.
    """
    from genrun.runner.job.plan import plan as plan_items
    from genrun.runner.job.resolve import LoadedJob

    return plan_items(job if isinstance(job, LoadedJob) else load_job(job, sets))


@dataclass(frozen=True)
class Forecast:
    """The ranks that a job would use, and how long they take as far as earlier runs tell.

    Attributes:
        mesh: how the ranks are arranged.
        elastic: True when groups that run out of items join the others.
        why: why they are arranged so.
        costs: of each item, in the order of the plan; None where no run tells it.
        predictions: other arrangements of as many ranks with what they would take; empty unless every cost is known.
    """

    mesh: Mesh
    elastic: bool
    why: str
    costs: tuple[Cost | None, ...]
    predictions: tuple[Prediction, ...] = ()


@checked
def forecast(loaded: LoadedJob, items: Sequence[WorkItem], why: str = "") -> Forecast:
    """Say which ranks a job would use and why, and how long that takes as far as earlier runs in its folder tell.

    Args:
        loaded: the job.
        items: its plan.
        why: why its ranks are arranged as they are, where `arrange` has decided it.

    Raises:
        UsageError: its launcher cannot start such ranks.
    """
    from genrun.runner.api.launching import make_launcher
    from genrun.runner.forecast import alternatives, costs_of, observations, predict
    from genrun.runner.submit.follow import is_elastic, mesh_request_of

    spec = loaded.job
    mesh = make_launcher(spec, loaded.document, items).mesh
    elastic = is_elastic(spec) and mesh.data > 1
    auto = spec.parallel.time == "auto" and mesh.ranks > 1
    why = why or (mesh_request_of(spec, items).choice(mesh.ranks).why if auto else "as the job says")
    costs = tuple(costs_of(items, list(observations(Path(spec.output.dir)))))
    known = [cost for cost in costs if cost is not None]
    meshes = alternatives(mesh) if known and len(known) == len(costs) else ()
    predictions = tuple(predict(items, known, each, elastic=elastic) for each in meshes)
    return Forecast(mesh, elastic, why, costs, predictions)


@checked
def calibrate(loaded: LoadedJob, items: Sequence[WorkItem], listener: Listener = QUIET) -> None:
    """Measure one item of each solver here, so that a forecast knows its cost."""
    from genrun.runner import forecast
    from genrun.runner.worker.engine import Engine

    forecast.calibrate(items, Engine(loaded.document), Path(loaded.job.output.dir), listener.say)


@checked
def estimate_memory(loaded: LoadedJob) -> list[tuple[MemorySubject, Sequence[MemoryEstimate]]]:
    """Estimate the memory of a rank by mode of offloading, for each model and size of a job; loads nothing.

    Raises:
        UsageError: a checkpoint is not on this machine, or its size cannot be told.
    """
    from genrun.runner.memory.estimate import estimates

    found = []
    for subject in _subjects(loaded.cells):
        with _reading(subject.folder):
            found.append((subject, estimates(subject)))
    return found


def _subjects(cells: Sequence[Cell]) -> Iterator[MemorySubject]:
    """Yield what differs among the cells in what memory depends on."""
    from genrun.adapters.pipeline.load_options import LoadOptions
    from genrun.runner.memory.estimate import MemorySubject, folder_of, shape_of

    seen = []
    for cell in cells:
        model, sampling = cell.job.model, cell.sampling
        folder = folder_of(cell.checkpoint, model.revision)
        held = LoadOptions.of(
            {
                **model.model_dump(mode="json"),
                **cell.additions.model,
                "checkpoint": cell.checkpoint.name,
                "dtype": cell.dtype,
            },
            "float32",
        )
        with _reading(folder):
            shape = shape_of(folder, sampling, held)
        guidance = float(sampling.get("guidance_scale") or 0) > 1
        subject = MemorySubject(folder, held, shape, int(sampling.get("steps") or 50), guidance)
        if subject not in seen:
            seen.append(subject)
            yield subject


@contextmanager
def _reading(checkpoint: Path) -> Iterator[None]:
    """Turn what a checkpoint's files do not tell into an error that names it."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UsageError(f"{checkpoint}: {error}.") from error


def _plain(value: Any, at: str = "") -> Any:
    """Return a value as YAML would hold it: paths as texts, sequences and arrays as lists, their numbers as Python's.

    Raises:
        TypeError: YAML could not hold it; `at` says where in the job it stands.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(each, f"{at}.{key}".lstrip(".")) for key, each in value.items()}
    # Arrays and numbers of numpy and torch, and columns of pandas.
    if callable(as_list := getattr(value, "tolist", None)):
        return _plain(as_list(), at)
    if isinstance(value, list | tuple | range):
        return [_plain(each, f"{at}[{index}]") for index, each in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{at}: wanted a text, a number, a list or a mapping; got {type(value).__name__}.")


def as_begun(
    made: SubmittedJob, named: RunFolder | None, job: AnyJob, sets: Sequence[str], listener: Listener
) -> SubmittedJob:
    """Return a job as the run that it goes on with was begun, where that is one of 0.1.0; else the job as it is.

    Args:
        made: the job as this version plans it.
        named: the run that it is to go on with; None for any of its name.
        job: what it was made from.
        sets: changes of the job, as texts `a.b=value`.
        listener: hears it when there is such a run.
    """
    from genrun.runner.job.options import OF_0_1
    from genrun.runner.store.runs import runs_of
    from genrun.runner.submit.resume import SubmittedJob, find_run, is_run_of

    base = Path(made.spec.output.dir)
    if named is None:
        if next(runs_of(base / made.spec.name), None) is None or find_run(made, base) is not None:
            return made
    elif is_run_of(made, named):
        return made
    loaded = load_job(job, sets, workers=OF_0_1)
    older = SubmittedJob.of(loaded)
    if {item.id for item in older.items} == {item.id for item in made.items}:
        return made
    found = find_run(older, base) if named is None else named if is_run_of(older, named) else None
    if found is None:
        return made
    listener.say(
        f"{found.path}: goes on with {OF_0_1} workers, as it was begun; for `workers: auto` submit with --new."
    )
    return older
