"""Check a checkpoint's pipeline against its adapter and the job, as far as that is known before anything is loaded."""

from __future__ import annotations

from typing import Any

from genrun.adapters.checkpoint.integrity import check_index
from genrun.adapters.checkpoint.pipeline_classes import missing_inputs
from genrun.adapters.checkpoint.variants import listed
from genrun.runner.job.checkpoint import Checkpoint
from genrun.runner.job.problems import Problem
from genrun.runner.job.schema import ModelSpec, SamplingSpec
from genrun.runner.job.sections import section
from genrun.runner.job.tree import Value, dotted
from genrun.runner.job.wording import place

AT = ("model", "checkpoint")


def pipeline_of(adapter: Any, checkpoint: Checkpoint, revision: str | None = None) -> str | None:
    """Name the class of a model's pipeline: the adapter's, or what a checkpoint on this machine says; else None."""
    if adapter.pipeline is not None:
        return adapter.pipeline
    try:
        name = (checkpoint.index(revision) or {}).get("_class_name")
    except ValueError:
        return None
    return name if isinstance(name, str) else None


def pipeline_problems(root: Value, spec: ModelSpec, adapter: Any, checkpoint: Checkpoint) -> list[Problem]:
    """Check the class of a checkpoint's pipeline: that it is the adapter's, there, and makes pictures from text.

    What a hub id holds that is not in the hub's cache is known when it is loaded.
    """
    try:
        message = _wrong(root, spec, adapter, checkpoint)
    except ValueError as error:
        message = f"{checkpoint.name!r} cannot be used: {error}."
    return [Problem(place(root, AT), dotted(AT), message)] if message else []


def _wrong(root: Value, spec: ModelSpec, adapter: Any, checkpoint: Checkpoint) -> str:
    wanted = getattr(adapter, "pipeline", None)
    index = checkpoint.index(spec.revision)
    found = wanted if index is None else index.get("_class_name")
    if wanted is not None and found != wanted:
        return f"holds a {found}, and {adapter.name} wants a {wanted}. Name another folder, or use `adapter: auto`."
    missing = missing_inputs(found, _given(root, adapter)) if isinstance(found, str) else ()
    if not missing:
        if index is not None:
            check_index(index)
        return ""
    inputs = listed(f"`{name}`" for name in missing)
    return f"{found} needs {inputs}: genrun makes pictures from text alone. Name a checkpoint of another pipeline."


def _given(root: Value, adapter: Any) -> frozenset[str]:
    """The arguments of the call that a job and its adapter give by name."""
    sampling = section(root, "sampling", SamplingSpec)
    options = {} if sampling is None else sampling.options
    return frozenset(options) | frozenset(getattr(adapter, "call", {}))
