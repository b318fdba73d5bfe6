"""What is installed: adapters, solvers, caches, launchers and metrics, by name."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class Registry(Protocol):
    """Things found by name; imports a thing when it is asked for."""

    def names(self) -> Sequence[str]:
        """Every name, sorted."""
        ...

    def get(self, name: str) -> Any:
        """The thing of that name."""
        ...


class Names(Protocol):
    """A registry of which only the names matter here."""

    def names(self) -> Sequence[str]:
        """Every name, sorted."""
        ...


@dataclass(frozen=True)
class Registries:
    """The registries that a job file refers to; tests pass their own.

    Attributes:
        adapters: of `genrun.adapters.registry`.
        solvers: frozen dataclasses whose fields are their options.
        launchers: of `launch.kind`.
        metrics: of `score`; only those that a job gives options are imported.
        caches: frozen dataclasses whose fields are their options.
    """

    adapters: Registry
    solvers: Registry
    launchers: Names
    metrics: Registry
    caches: Registry = field(default_factory=lambda: _module("genrun.adapters.caches.registry"))

    @classmethod
    def installed(cls) -> Registries:
        """The registries of this installation. Does not import torch."""
        return cls(
            adapters=_module("genrun.adapters.registry"),
            solvers=_module("genrun.solvers.registry"),
            launchers=_module("genrun.runner.launch.registry"),
            metrics=_module("genrun.adapters.scorers.registry"),
        )


def _module(name: str) -> Any:
    return importlib.import_module(name)
