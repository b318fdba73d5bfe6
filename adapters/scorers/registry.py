"""Finds metrics by module name in this folder, and in other packages by the entry point group `genrun.scorers`.

To add a metric: one file here whose `METRIC` satisfies `contract.Metric` or `contract.SetMetric`, importing torch inside
functions only.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from importlib.metadata import EntryPoint, entry_points

from genrun.adapters.scorers.contract import Metric, SetMetric

ENTRY_POINT_GROUP = "genrun.scorers"
PACKAGE = "genrun.adapters.scorers"
NOT_METRICS = frozenset({"contract", "registry"})


def names() -> tuple[str, ...]:
    """Every metric's name, sorted; nothing is imported."""
    return tuple(sorted({*_own_names(), *_foreign()}))


def get(name: str) -> Metric | SetMetric:
    """Import a metric.

    Args:
        name: one of `names()`. A metric of this folder hides a foreign one of the same name.

    Raises:
        ValueError: there is no such metric; the message names the nearest ones.
    """
    if name in _own_names():
        return importlib.import_module(f"{PACKAGE}.{name}").METRIC
    if name in (foreign := _foreign()):
        return foreign[name].load()
    near = difflib.get_close_matches(name, names(), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown metric {name!r}.{hint} There are: {', '.join(names())}.")


def _own_names() -> frozenset[str]:
    package = importlib.import_module(PACKAGE)
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    return frozenset(name for name in found if name not in NOT_METRICS and not name.startswith("_"))


def _foreign() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
