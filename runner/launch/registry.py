"""Launchers: one module each, found by its name, with a function `make(request) -> Launcher`."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from genrun.runner.launch.contract import Launcher, Request


_HELPERS = frozenset({"cause", "contract", "local", "lookout", "registry", "step", "submissions"})


def names() -> list[str]:
    """Return the names of all launchers, sorted."""
    return sorted(
        module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if module.name not in _HELPERS
    )


def get(name: str) -> Callable[[Request], Launcher]:
    """Return the function that makes the launcher `name`.

    Raises:
        UsageError: there is no such launcher.
    """
    if name not in names():
        from genrun.runner.spec.problems import did_you_mean

        raise UsageError(
            f"launch.kind: {name!r}: no such launcher.{did_you_mean(name, names())}",
            remedy=f"There are: {', '.join(names())}.",
        )
    return importlib.import_module(f"genrun.runner.launch.{name}").make
