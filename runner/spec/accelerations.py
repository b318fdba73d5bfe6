"""What is wrong with a cell's cache and attention, on its model and with its solver, told before anything loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from genrun.adapters import attention as kernels
from genrun.adapters.caches.contract import refusal
from genrun.adapters.caches.families import transformer_of
from genrun.runner.spec.options import DEFAULT_KIND
from genrun.runner.spec.problems import Problem
from genrun.runner.spec.registries import Registries
from genrun.runner.spec.tree import Value, dotted
from genrun.runner.spec.wording import place

NONE = "none"
INDEX = "model_index.json"


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
    transformer = None if model is None else transformer_of(_pipeline(*model))
    found = []
    value = root.get("attention")
    if value is not None and value.data in kernels.PACKAGES:
        reason = kernels.refusal(str(value.data), transformer)
        found += [] if reason is None else [Problem(value.origin, "attention", f"{reason}.")]
    if cache is None or solver is None or cache["kind"] == NONE:
        return found
    options = {name: given for name, given in cache.items() if name != "kind"}
    chosen = registries.caches.get(cache["kind"])(**options)
    workers = int(solver.get("workers") or 1)
    sequential = solver["kind"] == DEFAULT_KIND
    reason = refusal(cache["kind"], chosen, transformer, workers, sequential=sequential)
    if reason is None:
        return found
    at = ("cache", "kind")
    return [*found, Problem(place(root, at), dotted(at), f"{reason}.")]


def _pipeline(adapter: Any, checkpoint: Any) -> str | None:
    """The pipeline's class: the adapter's, or what the checkpoint's folder says."""
    named = getattr(adapter, "pipeline", None)
    if named is not None or checkpoint.folder is None:
        return named
    try:
        return json.loads((checkpoint.folder / INDEX).read_bytes()).get("_class_name")
    except (OSError, ValueError, AttributeError):
        return None
