"""What is wrong with a cell's cache and attention, on its model and with its solver, told before anything loads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genrun.adapters.caches.contract import refusal
from genrun.adapters.parallel.support import splits
from genrun.adapters.pipeline import attention as kernels
from genrun.adapters.pipeline.denoisers import transformer_of
from genrun.runner.job.options import DEFAULT_KIND
from genrun.runner.job.pipeline import pipeline_of
from genrun.runner.job.problems import Problem
from genrun.runner.job.registries import Registries
from genrun.runner.job.schema import ParallelSpec
from genrun.runner.job.sections import section
from genrun.runner.job.tree import Value, dotted
from genrun.runner.job.wording import place

NONE = "none"


def problems(
    root: Value,
    registries: Registries,
    model: tuple[Any, Any] | None,
    solver: Mapping[str, Any] | None,
    cache: Mapping[str, Any] | None,
) -> list[Problem]:
    """Return why the cell's cache or its attention cannot be used.

    Args:
        root: the cell's document.
        registries: what is installed.
        model: adapter and checkpoint, or None when they are wrong.
        solver: kind and options, or None when they are wrong.
        cache: the same of the cache.
    """
    pipeline = None if model is None else pipeline_of(*model)
    transformer = transformer_of(pipeline)
    parallel = section(root, "parallel", ParallelSpec) or ParallelSpec()
    found = []
    value = root.get("attention")
    if value is not None and isinstance(value.data, str) and value.data in kernels.PACKAGES:
        reason = kernels.refusal(str(value.data), transformer) or _under_xfuser("attention", parallel)
        found += [] if reason is None else [Problem(value.origin, "attention", f"{reason}.")]
    if cache is None or solver is None or cache["kind"] == NONE:
        return found
    options = {name: given for name, given in cache.items() if name != "kind"}
    chosen = registries.caches.get(cache["kind"])(**options)
    workers = int(solver.get("workers") or 1)
    sequential = solver["kind"] == DEFAULT_KIND
    split = splits(pipeline, parallel.cfg, parallel.ring, parallel.ulysses)
    reason = refusal(cache["kind"], chosen, transformer, workers, sequential=sequential, splits=split)
    reason = reason or _under_xfuser("cache", parallel)
    if reason is None:
        return found
    at = ("cache", "kind")
    return [*found, Problem(place(root, at), dotted(at), f"{reason}.")]


def _under_xfuser(field: str, parallel: ParallelSpec) -> str | None:
    """Why a transformer of xfuser's cannot have it."""
    if parallel.backend != "xfuser":
        return None
    what = {"cache": "no cache knows its blocks", "attention": "xfuser chooses its kernel"}[field]
    return (
        f"parallel.backend: xfuser puts a transformer of its own in place of the pipeline's, and {what}: "
        f"use backend: diffusers, or leave {field} out"
    )
