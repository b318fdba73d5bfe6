"""The registries that job files refer to: adapters, solvers, caches, launchers and metrics, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

LAUNCHERS = "genrun.runner.launch.registry"
"""Launchers are built on job files, so this package asks for them by name and imports none."""


class RegistryLike(Protocol):
    """Things found by name; imports a thing when it is asked for."""

    def names(self) -> Sequence[str]:
        """Return every name, sorted."""
        ...

    def get(self, name: str) -> Any:
        """Return the thing of that name."""
        ...


def _template_mistake(path: Path) -> str:
    return import_module(LAUNCHERS).get("slurm").mistake_in(path)


@dataclass(frozen=True)
class Registries:
    """Everything that is installed; tests pass their own.

    Attributes:
        adapters: of `genrun.adapters.registry`.
        solvers: frozen dataclasses whose fields are their options.
        launchers: of `launch.kind`; only their names are asked for.
        metrics: of `score`; only those that a job gives options are imported.
        caches: frozen dataclasses whose fields are their options.
        template_mistake: says what is wrong with a template of a batch script, or "".
    """

    adapters: RegistryLike
    solvers: RegistryLike
    launchers: RegistryLike
    metrics: RegistryLike
    caches: RegistryLike = field(default_factory=lambda: _registry("genrun.adapters.caches.registry"))
    template_mistake: Callable[[Path], str] = _template_mistake

    @classmethod
    def installed(cls) -> Registries:
        """Return the registries of this installation. Does not import torch."""
        return cls(
            adapters=_registry("genrun.adapters.registry"),
            solvers=_registry("genrun.solvers.registry"),
            launchers=_registry(LAUNCHERS),
            metrics=_registry("genrun.adapters.scorers.registry"),
        )


def _registry(module: str) -> Any:
    return import_module(module)
