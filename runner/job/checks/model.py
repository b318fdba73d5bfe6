"""Checks of a cell's model: its pipeline and how its weights are held, what it is called with, its cache and attention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from genrun.adapters.caches.contract import refusal
from genrun.adapters.checkpoint.diffusers_source import DELEGATES, loops_of
from genrun.adapters.checkpoint.index import components_of, index_of, listed
from genrun.adapters.checkpoint.integrity import check_index
from genrun.adapters.checkpoint.pipeline_classes import call_parameters, missing_package, package_of_processor
from genrun.adapters.parallel.support import splits
from genrun.adapters.pipeline import denoisers as kernels
from genrun.adapters.pipeline.call_options import refusals
from genrun.adapters.pipeline.denoisers import transformer_of
from genrun.adapters.pipeline.families import wrong_mark
from genrun.adapters.pipeline.load_options import missing
from genrun.registry import did_you_mean
from genrun.runner.job.cell import Draft
from genrun.runner.job.checkpoint import Checkpoint
from genrun.runner.job.checks.inputs import needed_fields
from genrun.runner.job.errors import JobProblem
from genrun.runner.job.options import DEFAULT_SOLVER, NO_CACHE
from genrun.runner.job.schema import ModelSpec, ParallelSpec
from genrun.runner.job.tree import Path, repeated


def check_pipeline(cell: Draft) -> Iterator[JobProblem]:
    """Refuse a pipeline of another class than the adapter's, or that does not make pictures from text alone.

    What a hub id holds that is not in the hub's cache is known when it is loaded.
    """
    if cell.model is None or cell.checkpoint is None:
        return
    try:
        message = _wrong_pipeline(cell, cell.model, cell.checkpoint)
    except ValueError as error:
        message = f"{cell.checkpoint.name!r} cannot be used: {error}."
    if message:
        yield cell.root.problem(("model", "checkpoint"), message)


def _wrong_pipeline(cell: Draft, model: ModelSpec, checkpoint: Checkpoint) -> str:
    wanted = cell.adapter.pipeline
    index = checkpoint.index(model.revision)
    found = wanted if index is None else index.get("_class_name")
    if wanted is not None and found != wanted and cell.added.pipeline is None:
        return (
            f"holds a {found}, and {cell.adapter.name} wants a {wanted}. Name another folder, or use `adapter: auto`."
        )
    parts = cell.parts
    if parts is not None and (mark := wrong_mark(cell.adapter, parts)):
        return f"holds a {found} whose {mark}, which is not {cell.adapter.name}. Use `adapter: auto`, or name another."
    found = cell.added.pipeline or found
    options = {} if cell.given_sampling is None else cell.given_sampling.options
    given = frozenset(options) | frozenset(cell.adapter.call)
    # What a prompt can have is asked of each.
    _, absent = needed_fields(found if isinstance(found, str) else None, given)
    if absent:
        inputs = listed(f"`{name}`" for name in absent)
        return f"{found} needs {inputs}, which no job can give. Name a checkpoint of another pipeline."
    for what, package in _packages(found, index or {}):
        if package:
            return f"{what} needs {package}, which is not installed: pip install {package}."
    if index is not None:
        check_index(index)
    return ""


def _packages(pipeline: object, index: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what a pipeline is made of, and the package that it lacks; "" for none."""
    if isinstance(pipeline, str):
        yield pipeline, missing_package(pipeline)
    for name, (library, kind) in components_of(index).items():
        if library == "transformers":
            yield f"its {name}, a {kind},", package_of_processor(kind)


def check_offload(cell: Draft) -> Iterator[JobProblem]:
    """Refuse to offload from the CPU."""
    model = cell.model
    if model is not None and cell.checkpoint and model.device == "cpu" and model.offload not in (None, "none"):
        message = "there is nothing to offload from on device: cpu. Leave one of the two out."
        yield cell.root.problem(("model", "offload"), message)


def check_quantization(cell: Draft) -> Iterator[JobProblem]:
    """Refuse a backend that is not installed."""
    if cell.model is None or cell.checkpoint is None or cell.model.quantization is None:
        return
    backend = cell.model.quantization.backend
    install = missing(backend)
    if install:
        at = ("model", "quantization", "backend")
        yield cell.root.problem(at, f"{backend} is not installed: {install}", key=True)


def check_components(cell: Draft) -> Iterator[JobProblem]:
    """Refuse names of components that a folder's pipeline does not have; a hub id's are known when it is loaded."""
    model, checkpoint = cell.model, cell.checkpoint
    known = list(components_of(index_of(checkpoint.folder))) if checkpoint is not None and checkpoint.folder else []
    if model is None or not known:
        return
    named: list[tuple[Path, str]] = []
    if isinstance(model.dtype, dict):
        named += [(("model", "dtype", name), name) for name in model.dtype if name != "default"]
    for index, name in enumerate(model.quantization.components if model.quantization else ()):
        named.append((("model", "quantization", "components", index), name))
    for at, name in named:
        if name not in known:
            there = did_you_mean(name, known) or f" It has {', '.join(known)}."
            yield cell.root.problem(at, f"the checkpoint has no component {name!r}.{there}", key=True)


def check_loops(cell: Draft) -> Iterator[JobProblem]:
    """Refuse a pipeline whose call samples nothing, or steps its frames apart."""
    loops = None if cell.pipeline is None else loops_of(cell.pipeline)
    if loops is None:
        return
    if not loops.steps:
        message = f"{cell.pipeline} takes no steps of a scheduler, so that there is nothing to sample"
        yield cell.root.problem(("model", "checkpoint"), f"{message}: call the pipeline without genrun.")
    elif loops.apart:
        message = f"{cell.pipeline} {loops.apart}, so that no step of the whole is there to choose"
        remedy = (
            "in Python genrun.parallelize follows them"
            if loops.apart == DELEGATES
            else "call the pipeline without genrun"
        )
        yield cell.root.problem(("model", "checkpoint"), f"{message}: {remedy}.")


FIELDS = ("guidance_scale", "height", "width", "num_frames", "negative_prompt")
"""Fields of `sampling` that are arguments of the call by the same name, which a pipeline may lack."""

SIDES = ("height", "width")
"""Fields of `sampling` whose impossible values fail the items of their cell, and of no other."""


def check_model_rules(cell: Draft) -> Iterator[JobProblem]:
    """Refuse sizes, frames and the like that the model cannot make."""
    if cell.sampling is None:
        return
    for name, message in cell.adapter.validate(cell.sampling):
        yield cell.root.problem(("sampling", name), f"{message.rstrip('.')}.", fails_items=name in SIDES)


def check_call(cell: Draft) -> Iterator[JobProblem]:
    """Refuse options that are none of the call's or genrun's own, and fields that the call has no argument for."""
    spec = cell.given_sampling
    if spec is None or cell.sampling is None:
        return
    refused = {name for name, _ in cell.adapter.validate(cell.sampling)}
    fields = [name for name in FIELDS if getattr(spec, name) is not None and name not in refused]
    if not spec.options and not fields:
        return
    found = None if cell.pipeline is None else call_parameters(cell.pipeline)
    parameters = None if found is None else [one.name for one in found]
    for name, message in refusals(spec.options, cell.sampling.get("steps"), cell.pipeline, parameters):
        ended = message if message.endswith(("?", ".")) else f"{message}."
        yield cell.root.problem(("sampling", "options", name), ended, key=True)
    for name in fields:
        if parameters is not None and name not in parameters:
            yield cell.root.problem(("sampling", name), f"{cell.pipeline} takes no {name}: leave it out.", key=True)


def check_negative_prompts(cell: Draft) -> Iterator[JobProblem]:
    """Refuse a negative prompt of a prompt's own that the model does not heed; the first of them is told."""
    # The job's own is told by the model's rules.
    if cell.sampling is None or cell.sampling.get("negative_prompt") is not None:
        return
    for prompt in cell.prompts:
        if prompt.negative_prompt is None:
            continue
        given = {**cell.sampling, "negative_prompt": prompt.negative_prompt}
        for name, message in cell.adapter.validate(given):
            if name == "negative_prompt":
                yield JobProblem(prompt.origin, "", f"negative_prompt: {message.rstrip('.')}.")
                return


def check_seeds(cell: Draft) -> Iterator[JobProblem]:
    """Refuse a seed that is given twice."""
    return repeated((at, value) for at, value in cell.root.entries(("seeds",)) if type(value.data) is int)


def check_confidence(cell: Draft) -> Iterator[JobProblem]:
    """Refuse a confidence for a solver that has no tolerance to keep."""
    solver, job = cell.solver, cell.job
    if solver is not None and job is not None and job.solver.confidence and "tolerance" not in solver:
        yield cell.root.problem(("solver", "confidence"), f"{solver['kind']} has no tolerance to keep. Leave it out.")


def check_attention(cell: Draft) -> Iterator[JobProblem]:
    """Refuse a kernel that is not installed, or that the model's transformer cannot use."""
    kernel = cell.root.text(("attention",))
    if kernel is None or kernel not in kernels.PACKAGES:
        return
    reason = kernels.refusal(kernel, transformer_of(cell.pipeline)) or _under_xfuser(cell, "attention")
    if reason is not None:
        yield cell.root.problem(("attention",), f"{reason}.")


def check_cache(cell: Draft) -> Iterator[JobProblem]:
    """Refuse a cache that does not go with the model, the solver, or the way that an evaluation is shared out."""
    if cell.cache is None or cell.solver is None or cell.cache["kind"] == NO_CACHE:
        return
    kind = cell.cache["kind"]
    options = {name: given for name, given in cell.cache.items() if name != "kind"}
    parallel = cell.parallel or ParallelSpec()
    reason = refusal(
        kind,
        cell.registries.caches.get(kind)(**options),
        transformer_of(cell.pipeline),
        int(cell.solver.get("workers") or 1),
        sequential=cell.solver["kind"] == DEFAULT_SOLVER,
        splits=splits(cell.pipeline, parallel.cfg, parallel.ring, parallel.ulysses),
    )
    reason = reason or _under_xfuser(cell, "cache")
    if reason is not None:
        yield cell.root.problem(("cache", "kind"), f"{reason}.")


def _under_xfuser(cell: Draft, field: str) -> str | None:
    """Return why a transformer of xfuser's cannot have it; None with another backend."""
    if cell.parallel is None or cell.parallel.backend != "xfuser":
        return None
    what = {"cache": "no cache knows its blocks", "attention": "xfuser chooses its kernel"}[field]
    return (
        f"parallel.backend: xfuser puts a transformer of its own in place of the pipeline's, and {what}: "
        f"use backend: diffusers, or leave {field} out"
    )
