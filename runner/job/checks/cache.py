"""Checks of a cell's cache and attention, on its model and with its solver."""

from __future__ import annotations

from collections.abc import Iterator

from genrun.adapters.caches.contract import refusal
from genrun.adapters.parallel.support import splits
from genrun.adapters.pipeline import attention as kernels
from genrun.adapters.pipeline.denoisers import transformer_of
from genrun.runner.job.cell import Draft
from genrun.runner.job.errors import JobProblem
from genrun.runner.job.options import DEFAULT_SOLVER, NO_CACHE
from genrun.runner.job.schema import ParallelSpec


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
