"""One cell of the matrix: its document checked against what is installed, and resolved to what will run."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from genrun.adapters.adapter import Adapter
from genrun.adapters.files import opened, unusable
from genrun.adapters.pipeline.families import OPEN, Parts, informed
from genrun.registry import did_you_mean
from genrun.runner.errors import JobFileError
from genrun.runner.job import accelerations, holding, launching, options
from genrun.runner.job import prompts as prompt_files
from genrun.runner.job.calls import call_problems
from genrun.runner.job.checkpoint import Checkpoint, locate, parts_of
from genrun.runner.job.gating import gate_problems
from genrun.runner.job.matrix import Corner
from genrun.runner.job.media import negative_problems, output_problems
from genrun.runner.job.pipeline import pipeline_of, pipeline_problems
from genrun.runner.job.places import at_home, folder_problems, located
from genrun.runner.job.problems import Problem
from genrun.runner.job.registries import Registries
from genrun.runner.job.schedulers import scheduler_problems
from genrun.runner.job.schema import CacheSpec, JobSpec, ModelSpec, SamplingSpec, SolverSpec
from genrun.runner.job.scores import score_problems
from genrun.runner.job.sections import section
from genrun.runner.job.suites import is_suite, suite_prompts
from genrun.runner.job.tree import Value, bare, dotted
from genrun.runner.job.wording import place, problems_of, shown, unknown

AUTO, NONE = "auto", "none"
MAX_NAMES = 10_000
"""Of files beside the one that is missing."""


@dataclass(frozen=True)
class Cell:
    """What one cell of the matrix runs: `prompts` x `job.seeds`.

    Attributes:
        axes: axis -> short label.
        job: the cell's job; its solver and its cache have every option.
        adapter: of the model.
        checkpoint: where the weights are.
        sampling: with the adapter's defaults, without fields that are not set.
        prompts: in the order of their list or file.
    """

    axes: Mapping[str, str]
    job: JobSpec
    adapter: Any
    checkpoint: Checkpoint
    sampling: Mapping[str, Any]
    prompts: tuple[prompt_files.Prompt, ...]

    @property
    def dtype(self) -> str | dict[str, str]:
        """Number type of the weights; or component -> number type, with "default" for those that are not named."""
        given = self.job.model.dtype
        return {"default": str(self.adapter.dtype), **given} if isinstance(given, dict) else given or self.adapter.dtype


SIDES = ("height", "width")
"""Fields of sampling whose impossible values fail the items of their cell, and of no other."""


@dataclass
class CellChecker:
    """Checks cells; files that several cells name are read once."""

    registries: Registries
    _prompts: dict[Path, list[prompt_files.Prompt] | JobFileError] = field(default_factory=dict)
    _checkpoints: dict[tuple[str, Path, str | None], Checkpoint | str] = field(default_factory=dict)
    _parts: dict[tuple[str, str | None], Parts | None] = field(default_factory=dict)

    def check(self, corner: Corner) -> tuple[Cell | None, list[Problem]]:
        """Check a cell, and return it (None when it cannot run) and everything that is wrong with it."""
        root = corner.root
        job, problems = job_of(root)
        solver, wrong = options.check(root, self.registries.solvers)
        problems += wrong
        cache, wrong = options.check(root, self.registries.caches, "cache", NONE)
        problems += wrong
        model = self._model(root, problems)
        problems += accelerations.problems(root, self.registries, model, solver, cache)
        sampling = _sampling(root, *model, problems) if model else None
        prompts = self._prompt_list(root, problems)
        if model is not None and sampling is not None:
            problems += output_problems(root, model[0], sampling) + negative_problems(model[0], sampling, prompts)
        problems += _repeated_seeds(root) + self._names(root) + launching.mesh_problems(root)
        problems += launching.slurm_problems(root) + launching.clashes(root)
        problems += gate_problems(root, self.registries.metrics) + folder_problems(root)
        pipeline = None if model is None else pipeline_of(*model, job.model.revision if job else None)
        problems += launching.support_problems(
            root, pipeline, *self._denoiser(model, job.model.revision if job else None)
        )
        problems += launching.guidance_problems(root, pipeline, sampling or {}, prompts)
        if (
            not all(problem.fails_items for problem in problems)
            or job is None
            or model is None
            or solver is None
            or cache is None
            or sampling is None
        ):
            return None, problems
        chosen = {"solver": SolverSpec(**solver), "cache": CacheSpec(**cache)}
        job = at_home(job.model_copy(update={**chosen, "launch": launching.resolved(job.launch, root)}))
        return Cell(corner.axes, job, *model, sampling, tuple(prompts)), problems

    def unfit(self, corner: Corner) -> list[Problem]:
        """Check what of a cell does not go with its mesh: caches, kernels, and the model itself."""
        root, unused = corner.root, list[Problem]()
        model = self._model(root, unused)
        solver, _ = options.check(root, self.registries.solvers)
        cache, _ = options.check(root, self.registries.caches, "cache", NONE)
        pipeline = None if model is None else pipeline_of(*model)
        problems = launching.support_problems(root, pipeline, *self._denoiser(model, None))
        return problems + accelerations.problems(root, self.registries, model, solver, cache)

    def _model(self, root: Value, problems: list[Problem]) -> tuple[Any, Checkpoint] | None:
        spec = section(root, "model", ModelSpec)
        if spec is None:
            return None
        names = self.registries.adapters.names()
        if spec.adapter not in names:
            at = ("model", "adapter")
            problems.append(Problem(place(root, at), dotted(at), unknown(spec.adapter, names, "model")))
            return None
        adapter = self.registries.adapters.get(spec.adapter)
        at = ("model", "checkpoint")
        text = spec.checkpoint or adapter.checkpoint
        if text is None:
            message = f"missing: {spec.adapter} has none of its own. Name a folder or a hub id (org/name)."
            problems.append(Problem(place(root, at), dotted(at), message))
            return None
        found = self._checkpoint(str(text), place(root, at).folder, spec.variant)
        if isinstance(found, Checkpoint):
            problems += holding.check(root, spec, found) + pipeline_problems(root, spec, adapter, found)
            return self._informed(adapter.for_checkpoint(found.name), found, spec.revision), found
        if spec.checkpoint is None and isinstance(adapter.checkpoint, Path) and not adapter.checkpoint.is_dir():
            found = f"the weights that come with {spec.adapter} are not in this installation. Reinstall genrun."
        elif spec.adapter == AUTO and "neither" in found:
            found += did_you_mean(str(text), names)
        problems.append(Problem(place(root, at), dotted(at), found))
        return None

    def _informed(self, adapter: Any, checkpoint: Checkpoint, revision: str | None) -> Any:
        """The adapter; one that leaves its pipeline open with the rules of the pipeline that the checkpoint has."""
        if not isinstance(adapter, Adapter) or adapter.name != OPEN:
            return adapter
        parts = self._parts_of(checkpoint, revision)
        return adapter if parts is None else informed(adapter, parts)

    def _denoiser(self, model: tuple[Any, Checkpoint] | None, revision: str | None) -> tuple[Mapping[str, Any], str]:
        """The config.json of a model's transformer or UNet, empty where it is not on this machine; and its usual dtype."""
        if model is None:
            return {}, ""
        parts = self._parts_of(model[1], revision)
        return {} if parts is None else parts.denoiser_config, str(getattr(model[0], "dtype", ""))

    def _parts_of(self, checkpoint: Checkpoint, revision: str | None) -> Parts | None:
        key = (checkpoint.name, revision)
        if key not in self._parts:
            self._parts[key] = parts_of(checkpoint, revision)
        return self._parts[key]

    def _checkpoint(self, text: str, base: Path, variant: str | None) -> Checkpoint | str:
        key = (text, base, variant)
        if key not in self._checkpoints:
            try:
                self._checkpoints[key] = locate(text, base, variant)
            except ValueError as error:
                self._checkpoints[key] = str(error)
        return self._checkpoints[key]

    def _prompt_list(self, root: Value, problems: list[Problem]) -> list[prompt_files.Prompt]:
        section = root.get("prompts")
        if section is None or section.wrong:
            return []
        if isinstance(section.data, list):
            found, wrong = _inline(section)
        elif is_suite(root):
            found, wrong = suite_prompts(root)
        else:
            found, wrong = self._from_file(root)
        problems += wrong or prompt_files.duplicates(found)
        return found

    def _from_file(self, root: Value) -> tuple[list[prompt_files.Prompt], list[Problem]]:
        at = ("prompts", "file")
        file, limit = root.find(at), root.find(("prompts", "limit"))
        if file is None or not isinstance(file.data, str) or not file.data:
            return [], []
        base = place(root, at).folder
        path = prompt_files.find(file.data, base)
        if path is None:
            reason = unusable(located(file.data, base)) or _no_regular_file(located(file.data, base))
            wrong = f"{shown(file.data)} cannot be read: {reason}." if reason else _no_file(file.data, base)
            return [], [Problem(file.origin, dotted(at), wrong)]
        if path not in self._prompts:
            self._prompts[path] = _read(path)
        prompts = self._prompts[path]
        if isinstance(prompts, JobFileError):
            return [], list(prompts.problems)
        if not prompts:
            return [], [Problem(file.origin, dotted(at), f"{str(path)!r} has no prompts.")]
        return prompts[: limit.data if limit is not None and isinstance(limit.data, int) else None], []

    def _names(self, root: Value) -> list[Problem]:
        """What is wrong with the names of launchers and metrics, and with metrics' options."""
        problems = score_problems(root, self.registries.metrics)
        kind, known = root.find(("launch", "kind")), self.registries.launchers.names()
        if kind is not None and isinstance(kind.data, str) and kind.data not in known:
            problems.append(Problem(kind.origin, "launch.kind", unknown(kind, known, "launcher")))
        return problems


def job_of(root: Value) -> tuple[JobSpec | None, list[Problem]]:
    """Check a document against the schema alone; return the job, or None, and what is wrong."""
    # Keys with nothing behind them (`seeds:`) mean the default, but for those that are none.
    known = JobSpec.model_fields
    data = {
        key: bare(value)
        for key, value in root.data.items()
        if value.data is not None or value.wrong or key not in known
    }
    try:
        return JobSpec.model_validate_json(json.dumps(data), strict=True), []
    except ValidationError as error:
        return None, problems_of(error, root)


def _sampling(root: Value, adapter: Any, checkpoint: Checkpoint, problems: list[Problem]) -> dict[str, Any] | None:
    """The section `sampling` with the adapter's defaults, whose other keys count as options of the call."""
    spec = section(root, "sampling", SamplingSpec)
    if spec is None:
        return None
    defaults = {key: value for key, value in adapter.defaults.items() if key in SamplingSpec.model_fields}
    extra = {key: value for key, value in adapter.defaults.items() if key not in SamplingSpec.model_fields}
    given = spec.model_dump(mode="json", exclude_none=True)
    given["options"] = {**extra, **given["options"]}
    resolved = SamplingSpec(**{**defaults, **given}).model_dump(mode="json", exclude_none=True)
    if not resolved["options"]:
        del resolved["options"]
    model = section(root, "model", ModelSpec)
    revision = None if model is None else model.revision
    problems += scheduler_problems(root, resolved, checkpoint, revision)
    wrong = [(("sampling", name), message) for name, message in adapter.validate(resolved)]
    problems += [
        Problem(place(root, at), dotted(at), f"{message.rstrip('.')}.", fails_items=at[-1] in SIDES)
        for at, message in wrong
    ]
    pipeline, told = pipeline_of(adapter, checkpoint, revision), {at[-1] for at, _ in wrong}
    problems += call_problems(root, spec, resolved.get("steps"), pipeline, told)
    return resolved


def _inline(section: Value) -> tuple[list[prompt_files.Prompt], list[Problem]]:
    prompts, problems = [], []
    for index, value in enumerate(section.data):
        if isinstance(value.data, str) and value.data.strip():
            prompts.append(prompt_files.Prompt(value.data, value.origin))
        elif isinstance(value.data, str) and value.data:
            problems.append(Problem(value.origin, dotted(("prompts", index)), "the prompt is blank."))
    return prompts, problems


def _read(path: Path) -> list[prompt_files.Prompt] | JobFileError:
    try:
        return prompt_files.read(path, str(path))
    except JobFileError as error:
        return error


def _no_file(file: str, base: Path) -> str:
    try:
        near = [path.name for path in itertools.islice(located(file, base).parent.iterdir(), MAX_NAMES)]
    except (OSError, ValueError):
        near = []
    meant = did_you_mean(Path(file).name, near)
    return f"there is no file {shown(file)} in {str(base)!r} or among the prompts packaged with genrun.{meant}"


def _no_regular_file(path: Path) -> str:
    """Why what is there is no file to read; "" where nothing is."""
    try:
        with opened(path):
            return ""
    except FileNotFoundError:
        return ""
    except OSError as error:
        return str(error.strerror)


def _repeated_seeds(root: Value) -> list[Problem]:
    seeds = root.get("seeds")
    problems = []
    first: dict[int, Value] = {}
    for index, value in enumerate(seeds.data if seeds and isinstance(seeds.data, list) else []):
        if type(value.data) is int and first.setdefault(value.data, value) is not value:
            message = f"{value.data} is given twice, first at {first[value.data].origin}. Remove one of them."
            problems.append(Problem(value.origin, dotted(("seeds", index)), message))
    return problems
