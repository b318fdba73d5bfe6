"""One item on several real gloo ranks: the bits do not depend on how many there are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e import ranks
from tests.preloaded import run_ranks

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    code, wrote = run_ranks(ranks.main, 4, folder)
    assert code == 0, wrote[-4000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(4)]


def test_result_is_bit_identical_on_one_two_and_four_ranks(found: list[dict[str, Any]]) -> None:
    for case, sizes in found[0]["cases"].items():
        everywhere = {entry["bits"] for rank in found for entry in rank["cases"][case].values()}
        assert len(everywhere) == 1, case
        assert len({sizes[size]["rounds"] for size in "124"}) == 1
        assert len({sizes[size]["nfe"] for size in "124"}) == 1


def test_ranks_go_back_together_where_a_gap_is_rejected(found: list[dict[str, Any]]) -> None:
    entries = [entry for rank in found for entry in rank["cases"]["sd3_jumping collocation"].values()]
    assert len(entries) == 7 and all(entry["fronts"] == entries[0]["fronts"] for entry in entries)
    assert entries[0]["fronts"] != sorted(entries[0]["fronts"])


def test_ranks_share_the_evaluations(found: list[dict[str, Any]]) -> None:
    """Every rank makes about a quarter of them, and all of them together no more than one repeated start each."""
    sizes = [rank["cases"]["sd3 paradigms"]["4"] for rank in found]
    nfe, calls = sizes[0]["nfe"], [entry["calls"] for entry in sizes]
    assert sum(calls) == nfe + 3
    assert max(calls) <= nfe / 4 + sizes[0]["rounds"] + 1


def test_a_rank_that_fails_stops_the_others_instead_of_hanging_them(found: list[dict[str, Any]]) -> None:
    assert [rank["raised"] for rank in found] == ["ExchangeError", "ExchangeError", "MemoryError", "ExchangeError"]


def test_a_rank_that_fails_in_its_first_evaluation_stops_the_others_too(found: list[dict[str, Any]]) -> None:
    expected = ["ExchangeError", "MemoryError", "ExchangeError", "ExchangeError"]
    assert [rank["raised first"] for rank in found] == expected


def test_non_finite_values_on_one_rank_are_the_same_error_on_all(found: list[dict[str, Any]]) -> None:
    assert [rank["nan"] for rank in found] == ["NonFiniteError"] * 4
    assert [rank["nan guess"] for rank in found] == ["nothing"] * 4


def test_the_group_works_on_after_failures(found: list[dict[str, Any]]) -> None:
    assert len({rank["after"] for rank in found}) == 1
