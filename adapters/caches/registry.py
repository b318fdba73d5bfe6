"""Caches by name: one module each in this package, others by the entry point `genrun.caches`.

A cache is a frozen dataclass whose fields are its options in a job file.
"""

from __future__ import annotations

from typing import Any

from genrun.registry import Registry
from genrun.registry import make as make_plugin

NONE = "none"
_REGISTRY = Registry(
    what="cache",
    group="genrun.caches",
    package="genrun.adapters.caches",
    own={
        NONE: "contract:NoCache",
        "first_block": "first_block:FirstBlock",
        "pab": "pab:PyramidAttention",
        "faster": "faster:Faster",
        "taylorseer": "taylorseer:TaylorSeer",
        "mag": "mag:Mag",
        "toca": "toca:Toca",
        "dbcache": "dbcache:DBCache",
    },
)
names = _REGISTRY.names
get = _REGISTRY.get


def kind_of(cache: object) -> str:
    """Return the name of a cache."""
    return next((kind for kind in names() if isinstance(cache, get(kind))), type(cache).__name__)


def make(section: dict[str, Any] | None) -> Any | None:
    """Make the cache of a job's section {"kind": ..., **options}; return None for none."""
    if not section or section.get("kind", NONE) == NONE:
        return None
    options = {name: value for name, value in section.items() if name != "kind"}
    return make_plugin(get(section["kind"]), section["kind"], options)
