"""Solvers by name: one module each in this package, others by the entry point `genrun.solvers`."""

from __future__ import annotations

import difflib
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

MODULES = {
    "sequential": "sequential:Sequential",
    "paradigms": "paradigms:Paradigms",
    "parataa": "parataa:Parataa",
    "parasolver": "parasolver:Parasolver",
    "parasolver-turbo": "parasolver_turbo:ParasolverTurbo",
    "ropa": "ropa:Ropa",
    "chords": "chords:Chords",
    "srds": "srds:Srds",
    "collocation": "collocation:Collocation",
}


class UnknownSolverError(LookupError):
    """No solver of that name; the message names the nearest."""


def names() -> tuple[str, ...]:
    """All solvers, ours first."""
    return (*MODULES, *(point.name for point in entry_points(group="genrun.solvers")))


def get(kind: str) -> type[Any]:
    """The solver's dataclass, whose fields are its options. Raises UnknownSolverError."""
    if kind in MODULES:
        module, name = MODULES[kind].split(":")
        return getattr(import_module(f"genrun.solvers.{module}"), name)
    for point in entry_points(group="genrun.solvers"):
        if point.name == kind:
            return point.load()
    near = difflib.get_close_matches(kind, names(), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(names())}."
    raise UnknownSolverError(f"unknown solver {kind!r}.{hint}")
