"""Cells of the matrix: a document resolved, section by section, to what will run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from genrun.adapters.adapter import Adapter
from genrun.adapters.pipeline.families import OPEN, Parts, as_pipeline, chosen, informed
from genrun.registry import did_you_mean
from genrun.runner.job.additions import FoundAdditions, Headers, find_additions, is_set
from genrun.runner.job.checkpoint import Checkpoint, locate, locate_part, parts_of
from genrun.runner.job.errors import JobProblem
from genrun.runner.job.files import Inputs, Look, expanded, found_inputs, input_reader, located
from genrun.runner.job.options import DEFAULT_SOLVER, NO_CACHE, Registries, kind_options, time_ranks, with_workers
from genrun.runner.job.plan import NATIVE
from genrun.runner.job.prompt_files import Prompt
from genrun.runner.job.prompts import ReadFile, file_reader, prompts_of
from genrun.runner.job.schema import CacheSpec, JobSpec, LaunchSpec, ModelSpec, ParallelSpec, SamplingSpec, SolverSpec
from genrun.runner.job.tree import Value, unknown
from genrun.runner.job.validate import job_of, section

CHECKPOINT = ("model", "checkpoint")


@dataclass(frozen=True)
class Cell:
    """A cell of the matrix that can run: `prompts` x `job.seeds`.

    Attributes:
        axes: axis -> short label.
        job: the cell's job; its solver and its cache have every option.
        adapter: of the model.
        checkpoint: where the weights are.
        sampling: with the adapter's defaults, without fields that are not set.
        prompts: in the order of their list or file.
        inputs: the pictures and clips of each prompt.
        additions: what is added to the checkpoint.
    """

    axes: Mapping[str, str]
    job: JobSpec
    adapter: Any
    checkpoint: Checkpoint
    sampling: Mapping[str, Any]
    prompts: tuple[Prompt, ...]
    inputs: tuple[Inputs, ...]
    additions: FoundAdditions = field(default_factory=FoundAdditions)

    @property
    def dtype(self) -> str | dict[str, str]:
        """Number type of the weights; or component -> number type, with "default" for those that are not named."""
        given = self.job.model.dtype
        return {"default": str(self.adapter.dtype), **given} if isinstance(given, dict) else given or self.adapter.dtype


def _checkpoint(
    text: str, base: Path, variant: str | None, config: Path | None, without: frozenset[str]
) -> Checkpoint | str:
    try:
        return locate(text, base, variant, config, without)
    except ValueError as error:
        return str(error)


@dataclass(frozen=True)
class Sources:
    """Registries and files that cells are resolved from; a file that several cells name is read once.

    Attributes:
        registries: what is installed.
        checkpoint: finds a checkpoint by name, folder, variant, configurations and the components that are not read;
            returns why there is none.
        parts: tells what the files of a checkpoint say of its pipeline.
        prompts: reads a prompt file.
        look: looks at a picture or clip.
        headers: reads what tensors are in files of weights.
        workers: K where a job leaves it open, in place of what follows from its mesh.
        items: counts the items of all cells, which share the mesh; those of a cell alone where it is None.
    """

    registries: Registries
    checkpoint: Callable[[str, Path, str | None, Path | None, frozenset[str]], Checkpoint | str] = field(
        default_factory=lambda: cache(_checkpoint)
    )
    parts: Callable[[Checkpoint, str | None], Parts | None] = field(default_factory=lambda: cache(parts_of))
    prompts: ReadFile = field(default_factory=file_reader)
    look: Look = field(default_factory=input_reader)
    headers: Headers = field(default_factory=Headers)
    workers: int | None = None
    items: Callable[[], int] | None = None


@dataclass(frozen=True)
class Draft:
    """A cell that is being checked: a section is resolved when it is asked for, and None where it is wrong.

    Attributes:
        root: the cell's document.
        axes: axis -> short label.
        sources: what it is resolved from.
    """

    root: Value
    axes: Mapping[str, str]
    sources: Sources

    @property
    def registries(self) -> Registries:
        """The registries of what is installed."""
        return self.sources.registries

    def unresolved(self) -> list[JobProblem]:
        """Name what keeps sections from being resolved."""
        found = (self._job, self._solver, self._cache, self._model, self._additions, self._prompts, self._inputs)
        return [problem for _, problems in found for problem in problems]

    def cell(self) -> Cell | None:
        """Return what the cell runs, or None when a section is wrong."""
        job, solver, acceleration, model, sampling = self.job, self.solver, self.cache, self._model[0], self.sampling
        if job is None or solver is None or acceleration is None or model is None or sampling is None:
            return None
        solver = SolverSpec(**solver, confidence=job.solver.confidence)
        job = job.model_copy(update={"model": self.model, "solver": solver, "cache": CacheSpec(**acceleration)})
        each = (tuple(self.prompts), tuple(self.inputs), self.added)
        return Cell(self.axes, anywhere(job, self.root), *model, sampling, *each)

    @property
    def job(self) -> JobSpec | None:
        """The whole document."""
        return self._job[0]

    @property
    def solver(self) -> Mapping[str, Any] | None:
        """Kind and every option."""
        return self._solver[0]

    @property
    def cache(self) -> Mapping[str, Any] | None:
        """Kind and every option."""
        return self._cache[0]

    @property
    def adapter(self) -> Any:
        """The adapter, with the rules of the pipeline that the checkpoint has."""
        return None if self._model[0] is None else self._model[0][0]

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The folder or hub id of the weights."""
        return None if self._model[0] is None else self._model[0][1]

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts, in the order of their list or file; none where they are wrong."""
        return self._prompts[0]

    @property
    def inputs(self) -> list[Inputs]:
        """The pictures and clips of each prompt, without those that cannot be used."""
        return self._inputs[0]

    @cached_property
    def model(self) -> ModelSpec | None:
        """The section `model`; of one that names a checkpoint alone, with the adapter that it means."""
        spec = section(self.root, "model", ModelSpec)
        if spec is None or spec.checkpoint is None or "adapter" in spec.model_fields_set:
            return spec
        config, _ = self._config(spec.config)
        place, without = self.root.place(CHECKPOINT).folder, frozenset(spec.components or ())
        found = self.sources.checkpoint(spec.checkpoint, place, spec.variant, config, without)
        if not isinstance(found, Checkpoint) or not isinstance(self.registries.adapters.get(OPEN), Adapter):
            return spec
        name = chosen(found.name, None if found.folder is None else self.sources.parts(found, spec.revision))
        return spec if name is None else spec.model_copy(update={"adapter": name})

    @cached_property
    def launch(self) -> LaunchSpec | None:
        """The section `launch`."""
        return section(self.root, "launch", LaunchSpec)

    @cached_property
    def parallel(self) -> ParallelSpec | None:
        """The section `parallel`."""
        return section(self.root, "parallel", ParallelSpec)

    @cached_property
    def given_sampling(self) -> SamplingSpec | None:
        """The section `sampling` as it is written."""
        return section(self.root, "sampling", SamplingSpec)

    @cached_property
    def sampling(self) -> dict[str, Any] | None:
        """The section `sampling` with the adapter's defaults, whose other keys count as options of the call."""
        if self.given_sampling is None or self.adapter is None:
            return None
        defaults = {key: value for key, value in self.adapter.defaults.items() if key in SamplingSpec.model_fields}
        extra = {key: value for key, value in self.adapter.defaults.items() if key not in SamplingSpec.model_fields}
        given = self.given_sampling.model_dump(mode="json", exclude_none=True)
        given["options"] = {**extra, **given["options"]}
        resolved = SamplingSpec(**{**defaults, **given}).model_dump(mode="json", exclude_none=True)
        if not resolved["options"]:
            del resolved["options"]
        return resolved

    @cached_property
    def pipeline(self) -> str | None:
        """The class of the model's pipeline, where that is known before it is loaded."""
        if self.checkpoint is None:
            return None
        if self.added.pipeline is not None:
            return self.added.pipeline
        return pipeline_of(self.adapter, self.checkpoint, None if self.model is None else self.model.revision)

    @property
    def added(self) -> FoundAdditions:
        """The additions to the checkpoint, as far as they are right."""
        return self._additions[0]

    @cached_property
    def parts(self) -> Parts | None:
        """The parts of the model's pipeline; None where they are not on this machine."""
        return self._parts(self.checkpoint)

    @cached_property
    def denoiser(self) -> Mapping[str, Any]:
        """The config.json of the model's transformer or UNet; empty where it is not on this machine."""
        return {} if self.parts is None else self.parts.denoiser_config

    @cached_property
    def _job(self) -> tuple[JobSpec | None, list[JobProblem]]:
        return job_of(self.root)

    @cached_property
    def _solver(self) -> tuple[dict[str, Any] | None, list[JobProblem]]:
        registry = self.registries.solvers
        root = with_workers(self.root, registry, DEFAULT_SOLVER, self.sources.workers or self._time_ranks())
        return kind_options(root, registry, "solver", DEFAULT_SOLVER)

    def _time_ranks(self) -> int:
        launch, parallel, job = self.launch, self.parallel, self.job
        if launch is None or parallel is None or job is None:
            return 1
        return time_ranks(launch, parallel, job.objective, (self.sources.items or self.count)())

    def count(self) -> int:
        """Return how many items the cell has, as far as its prompts and seeds are right."""
        seeds = 0 if self.job is None else len(self.job.seeds)
        return sum(seeds if prompt.seed is None else 1 for prompt in self.prompts)

    @property
    def _kind(self) -> str:
        """The solver's name: known before its options are, of which K depends on how many items there are."""
        named = self.root.find(("solver", "kind"))
        return DEFAULT_SOLVER if named is None else str(named.data)

    @property
    def is_reference(self) -> bool:
        """True when items of other cells are compared with those of this one: sequential, computed in full."""
        job, acceleration = self.job, self.cache
        is_whole = job is not None and job.attention == NATIVE and (acceleration or {}).get("kind") == NO_CACHE
        return is_whole and self._kind == DEFAULT_SOLVER

    @property
    def has_tolerance(self) -> bool:
        """True when the cell's solver has a tolerance, so that its items can be audited."""
        registry, kind = self.registries.solvers, self._kind
        return kind in registry.names() and "tolerance" in {each.name for each in fields(registry.get(kind))}

    @cached_property
    def _cache(self) -> tuple[dict[str, Any] | None, list[JobProblem]]:
        return kind_options(self.root, self.registries.caches, "cache", NO_CACHE)

    @cached_property
    def _prompts(self) -> tuple[list[Prompt], list[JobProblem]]:
        return prompts_of(self.root, self.sources.prompts)

    @cached_property
    def _inputs(self) -> tuple[list[Inputs], list[JobProblem]]:
        return found_inputs(self.root, self.prompts, self.sources.look)

    @cached_property
    def _model(self) -> tuple[tuple[Any, Checkpoint] | None, list[JobProblem]]:
        located, problems = self._located
        if located is None:
            return None, problems
        adapter, found = located
        if not isinstance(adapter, Adapter):
            return located, problems
        parts, named = self._parts(found), self.added.pipeline
        if adapter.name != OPEN and named is not None:
            whole = self.registries.adapters.get(adapter.name)
            known = Parts(named, index=adapter.marks) if parts is None else replace(parts, pipeline=named)
            return (as_pipeline(whole, known), found), problems
        if parts is None or not (adapter.name == OPEN or adapter.forms):
            return located, problems
        return (informed(adapter, replace(parts, pipeline=named or parts.pipeline)), found), problems

    @cached_property
    def _additions(self) -> tuple[FoundAdditions, list[JobProblem]]:
        located = self._located[0]
        if self.model is None or located is None or not is_set(self.model):
            return FoundAdditions(), []
        adapter, found = located
        return find_additions(self.root, self.model, found, self.sources.headers, adapter.pipeline)

    @cached_property
    def _located(self) -> tuple[tuple[Any, Checkpoint] | None, list[JobProblem]]:
        spec, adapters = self.model, self.registries.adapters
        if spec is None:
            return None, []
        names = adapters.names()
        if spec.adapter not in names:
            return None, [self.root.problem(("model", "adapter"), unknown(spec.adapter, names, "model"))]
        adapter = adapters.get(spec.adapter)
        at = CHECKPOINT
        text = spec.checkpoint or adapter.checkpoint
        if text is None:
            message = f"missing: {spec.adapter} has none of its own. Name a folder or a hub id (org/name)."
            return None, [self.root.problem(at, message)]
        config, wrong = self._config(spec.config)
        without = frozenset(spec.components or ())
        found = wrong or self.sources.checkpoint(str(text), self.root.place(at).folder, spec.variant, config, without)
        if isinstance(found, Checkpoint):
            if config is None or found.file is not None:
                return (adapter.for_checkpoint(found.name), found), []
            found = wrong = "is for a checkpoint that is one file, and this one is none. Leave it out."
        if wrong:
            at = ("model", "config")
        if spec.checkpoint is None and isinstance(adapter.checkpoint, Path) and not adapter.checkpoint.is_dir():
            found = f"the weights that come with {spec.adapter} are not in this installation. Reinstall genrun."
        elif spec.adapter == OPEN and "neither" in found:
            found += did_you_mean(str(text), names)
        return None, [self.root.problem(at, found)]

    def _config(self, text: str | None) -> tuple[Path | None, str]:
        """Return the folder of a pipeline's configurations that a job names, or why there is none."""
        if text is None:
            return None, ""
        try:
            folder = locate_part(text, self.root.place(("model", "config")).folder).local_folder(None)
        except ValueError as error:
            return None, str(error)
        return (
            folder,
            "" if folder is not None else f"{text!r} is no folder on this machine. Get it: hf download {text}.",
        )

    def _parts(self, checkpoint: Checkpoint | None) -> Parts | None:
        if checkpoint is None:
            return None
        return self.sources.parts(checkpoint, None if self.model is None else self.model.revision)


def pipeline_of(adapter: Any, checkpoint: Checkpoint, revision: str | None = None) -> str | None:
    """Name the class of a model's pipeline: the adapter's, or what a checkpoint on this machine says; else None."""
    if adapter.pipeline is not None:
        return adapter.pipeline
    try:
        name = (checkpoint.index(revision) or {}).get("_class_name")
    except ValueError:
        return None
    return name if isinstance(name, str) else None


def sampling_of(sampling: Mapping[str, Any], prompt: Prompt) -> dict[str, Any]:
    """Return a cell's sampling with the fields that a prompt has of its own."""
    own = {name: value for name, value in prompt.row.items() if name in SamplingSpec.model_fields}
    if "strength" not in prompt.row:
        return {**sampling, **own}
    return {**sampling, **own, "options": {**sampling.get("options", {}), "strength": prompt.row["strength"]}}


def anywhere(job: JobSpec, root: Value) -> JobSpec:
    """Return a job that can be run from any folder: its template by an absolute path, its folder of runs without `~`."""
    output = job.output.model_copy(update={"dir": str(expanded(job.output.dir))})
    launch = job.launch
    if launch.template is not None:
        folder = root.place(("launch", "template")).folder
        launch = launch.model_copy(update={"template": str(located(launch.template, folder).resolve())})
    return job.model_copy(update={"output": output, "launch": launch})
