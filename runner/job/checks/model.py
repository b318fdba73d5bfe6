"""Checks of a cell's checkpoint: its pipeline, and how its weights are to be held in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from genrun.adapters.checkpoint.index import components_of, index_of
from genrun.adapters.checkpoint.integrity import check_index
from genrun.adapters.checkpoint.pipeline_classes import missing_package, package_of_processor
from genrun.adapters.checkpoint.variants import listed
from genrun.adapters.pipeline.families import wrong_mark
from genrun.adapters.pipeline.quantization import missing
from genrun.registry import did_you_mean
from genrun.runner.job.cell import Draft
from genrun.runner.job.checkpoint import Checkpoint
from genrun.runner.job.checks.inputs import needed_fields
from genrun.runner.job.errors import JobProblem
from genrun.runner.job.schema import ModelSpec
from genrun.runner.job.tree import Path


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
