"""One mechanism for every kind of plugin: a table of genrun's own, and entry points of other packages."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

import genrun.registry
from genrun.adapters import registry as models
from genrun.adapters.caches import registry as caches
from genrun.adapters.scorers import registry as metrics
from genrun.registry import Registry, UnknownNameError
from genrun.runner.launch import registry as launchers
from genrun.solvers import registry as solvers

REGISTRIES = {
    "genrun.solvers": solvers,
    "genrun.adapters": models,
    "genrun.caches": caches,
    "genrun.scorers": metrics,
    "genrun.launchers": launchers,
}


@pytest.mark.parametrize("group", REGISTRIES)
def test_every_name_can_be_imported(group: str) -> None:
    names = REGISTRIES[group].names()
    assert len(names) == len(set(names)) >= 3
    assert all(REGISTRIES[group].get(name) is not None for name in names)


@pytest.mark.parametrize("group", REGISTRIES)
def test_another_package_adds_a_plugin_by_an_entry_point(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _publish(monkeypatch, EntryPoint("theirs", "fractions:Fraction", group))
    registry: ModuleType = REGISTRIES[group]
    assert registry.names()[-1] == "theirs"
    assert registry.get("theirs").__name__ == "Fraction"


def test_a_name_of_genruns_own_hides_anothers(monkeypatch: pytest.MonkeyPatch) -> None:
    _publish(monkeypatch, EntryPoint("ropa", "fractions:Fraction", "genrun.solvers"))
    assert solvers.names().count("ropa") == 1
    assert solvers.get("ropa").__name__ == "Ropa"


def test_an_unknown_name_is_told_with_the_nearest_and_all_that_there_are() -> None:
    registry = Registry(
        "colour", "genrun.colours", "genrun", {"red": "red:RED", "green": "green:GREEN"}, " or a number"
    )
    with pytest.raises(
        UnknownNameError,
        match=r"^unknown colour 'gren'\. Did you mean 'green'\? There are: red, green or a number\.$",
    ):
        registry.get("gren")


def _publish(monkeypatch: pytest.MonkeyPatch, point: EntryPoint) -> None:
    monkeypatch.setattr(genrun.registry, "published", lambda group: [point] if group == point.group else [])
