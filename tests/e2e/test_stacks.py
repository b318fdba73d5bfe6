"""Caches, solvers and meshes on two real gloo ranks: one picture under one id, or a refusal by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from genrun.adapters.parallel.support import DOUBLED
from tests.e2e import stacks
from tests.e2e.stacks import FAMILIES
from tests.preloaded import run_ranks
from tests.tiny import build

pytestmark = pytest.mark.e2e

ROUNDING = 2e-6
"""Of float32 over a few steps, in units of the largest value: the bound of the same meshes without a cache."""
REPLICATED = 0.04
"""Share of the linear layers' work on tiny models that every rank of a token split does, such as the text's keys in Wan."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the first of the two ranks found."""
    folder = tmp_path_factory.mktemp("stacks")
    code, wrote = run_ranks(stacks.main, 2, folder)
    assert code == 0, wrote[-4000:]
    ranks = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0] == ranks[1]
    return ranks[0]


def made(found: dict[str, Any]) -> Iterator[tuple[str, list[str], dict[str, Any]]]:
    """Each combination that was sampled: its name, its parts, and what came out."""
    for name, result in found.items():
        if not isinstance(result, str):
            yield name, name.split(" | "), result


def is_exact(axis: str, family: str) -> bool:
    """Whether the ranks leave each call of the model whole."""
    doubled = type(build(family.removesuffix(" embedded"))).__name__ in DOUBLED
    return axis == "time" or (axis == "cfg" and not doubled)


def test_each_gives_what_one_rank_gives(found: dict[str, Any]) -> None:
    exact = {(axis, family): is_exact(axis, family) for family, axes in FAMILIES.items() for axis in axes}
    for name, (axis, family, *_), result in made(found):
        assert result["distance"] <= (0 if exact[axis, family] else ROUNDING), name


def test_each_counts_the_blocks_that_one_rank_counts(found: dict[str, Any]) -> None:
    for name, (axis, *_), result in made(found):
        slack = REPLICATED * result["alone"][1] if axis in ("ulysses", "ring") else 0.002
        assert result["blocks"] == pytest.approx(result["alone"], abs=slack), name


def test_the_caches_do_save_something_there(found: dict[str, Any]) -> None:
    saving = {parts[2] for _, parts, result in made(found) if result["blocks"][0] < 0.97 * result["blocks"][1]}
    assert saving == {parts[2] for _, parts, _ in made(found)} - {"none"}


def test_what_cannot_be_is_refused_by_name(found: dict[str, Any]) -> None:
    refused = {
        tuple(name.split(" | ")[i] for i in (0, 2)): text for name, text in found.items() if isinstance(text, str)
    }
    assert {("cfg", "faster")} <= refused.keys() <= {("cfg", "faster"), ("ulysses", "dbcache"), ("ring", "dbcache")}
    for (_, cache), text in refused.items():
        assert f"{cache} needs" in text
        assert "on one rank" in text
        assert "Use " in text
