"""Evaluations made by two gloo ranks together, on a mesh of time 2 x ulysses 2 and of time 2 x cfg 2."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e import slots
from tests.preloaded import run_ranks

pytestmark = pytest.mark.e2e

ROUNDING = 1e-6
"""Of float32 over a few steps, in units of the largest value."""
BATCHED = {"sd2 float32": 2e-5}
"""Where kernels sum a doubled batch otherwise by more than twice that: convolutions, 1.02e-5 on one processor."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the four ranks found. The last thing they try ends one of them, with code 3."""
    folder = tmp_path_factory.mktemp("slots")
    _, wrote = run_ranks(slots.main, 4, folder)
    files = [folder / f"{rank}.json" for rank in range(4)]
    assert all(file.exists() for file in files), wrote[-4000:]
    return [json.loads(file.read_text()) for file in files]


def test_two_ranks_share_the_tokens_of_an_evaluation_and_get_what_one_gets(found: list[dict[str, Any]]) -> None:
    for rank in found:
        for family, seen in rank["context"].items():
            assert seen["share"] == 0.5, family
            assert seen["distance"] <= ROUNDING, family


def test_two_ranks_make_one_guidance_branch_each_and_get_the_bits_of_one(found: list[dict[str, Any]]) -> None:
    """Of one rank that evaluates a doubled batch half by half, where the pipeline doubles it."""
    for rank in found:
        for case, seen in rank["guidance"].items():
            assert seen.get("distance of halves", seen["distance"]) == 0, case
            assert seen["distance"] <= BATCHED.get(case, 2 * ROUNDING), case


def test_a_rank_of_two_by_two_evaluates_little_more_than_a_quarter(found: list[dict[str, Any]]) -> None:
    """More, since all ranks make the first evaluation, and rounds do not always fill them."""
    for rank in found:
        assert all(seen["share"] < 0.4 for seen in rank["guidance"].values())


def test_caches_decide_over_both_guidance_and_tokens(found: list[dict[str, Any]]) -> None:
    for rank in found:
        for case, seen in rank["cached"].items():
            assert seen["distance"] <= 2 * ROUNDING, case
            assert seen["blocks"] == pytest.approx(seen["alone"], rel=0.02), case


def test_a_call_without_guidance_is_refused_by_name(found: list[dict[str, Any]]) -> None:
    for rank in found:
        assert all("parallel.cfg: 2 needs two guidance branches" in text for text in rank["nothing to share"])


def test_ranks_that_all_fail_go_on(found: list[dict[str, Any]]) -> None:
    assert [rank["all fail"] for rank in found] == ["MemoryError"] * 4


def test_a_rank_that_fails_alone_in_an_evaluation_has_to_end_for_the_others(found: list[dict[str, Any]]) -> None:
    assert found[3]["one fails"].startswith("MemoryError: no memory left, on one of the ranks of an evaluation")
    assert found[1]["one fails"] == "ExchangeError"
