"""Caches by name: one module each in this package, others by the entry point `genrun.caches`."""

from __future__ import annotations

import difflib
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

NONE = "none"
MODULES = {
    "none": "none:NoCache",
    "first_block": "first_block:FirstBlock",
    "pab": "pab:PyramidAttention",
    "faster": "faster:Faster",
    "taylorseer": "taylorseer:TaylorSeer",
    "mag": "mag:Mag",
    "toca": "toca:Toca",
    "dbcache": "dbcache:DBCache",
}


class UnknownCacheError(LookupError):
    """No cache of that name; the message names the nearest."""


def names() -> tuple[str, ...]:
    """All caches, ours first."""
    return (*MODULES, *(point.name for point in entry_points(group="genrun.caches")))


def get(kind: str) -> type[Any]:
    """The cache's dataclass, whose fields are its options. Raises UnknownCacheError."""
    if kind in MODULES:
        module, name = MODULES[kind].split(":")
        return getattr(import_module(f"genrun.adapters.caches.{module}"), name)
    for point in entry_points(group="genrun.caches"):
        if point.name == kind:
            return point.load()
    near = difflib.get_close_matches(kind, names(), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(names())}."
    raise UnknownCacheError(f"unknown cache {kind!r}.{hint}")


def kind_of(cache: object) -> str:
    """The name of a cache."""
    return next((kind for kind in names() if isinstance(cache, get(kind))), type(cache).__name__)


def make(section: dict[str, Any] | None) -> Any | None:
    """The cache of a job's section {"kind": ..., **options}; None for none."""
    if not section or section.get("kind", NONE) == NONE:
        return None
    return get(section["kind"])(**{name: value for name, value in section.items() if name != "kind"})
