"""The end of an elastic batch: how many items are kept for it, and how many groups share each."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrun.runner.parallel.mesh import items_kept_back, points_of, share_groups
from tests.fakes.items import make_item


@pytest.mark.parametrize(
    ("points", "groups", "time", "kept"),
    [
        ([8] * 9, 4, 1, 1),
        ([8] * 8, 4, 1, 0),
        ([8] * 3, 4, 1, 3),
        ([1] * 9, 4, 1, 0),
        ([1] * 8 + [8], 4, 1, 1),
        ([2] * 9, 4, 2, 0),
        ([4] * 9, 4, 2, 1),
        ([8] * 9, 1, 4, 0),
    ],
)
def test_what_would_fill_only_part_of_the_groups_is_kept_if_ranks_can_share_it(
    points: list[int], groups: int, time: int, kept: int
) -> None:
    assert items_kept_back(points, groups, time) == kept


@pytest.mark.parametrize(
    ("points", "groups", "time", "shares"),
    [
        ([], 4, 1, []),
        ([8], 4, 1, [4]),
        ([8, 8], 4, 1, [2, 2]),
        ([8, 8, 8], 4, 1, [4]),
        ([2], 4, 1, [2]),
        ([1, 1, 1], 4, 1, [1, 1, 1]),
        ([8] * 8, 4, 1, [1, 1, 1, 1]),
        ([4], 4, 2, [2]),
    ],
)
def test_items_are_shared_so_that_all_of_them_end_soonest(
    points: list[int], groups: int, time: int, shares: list[int]
) -> None:
    assert share_groups(points, groups, time) == shares


@given(st.lists(st.integers(1, 16), min_size=1, max_size=12), st.integers(1, 9), st.integers(1, 4))
def test_a_wave_fits_the_groups_and_leaves_no_slot_without_points(points: list[int], groups: int, time: int) -> None:
    shares = share_groups(points, groups, time)
    assert 1 <= len(shares) <= len(points)
    assert sum(shares) <= groups
    assert all(share == 1 or share * time <= each for share, each in zip(shares, points, strict=False))


@given(st.integers(1, 40), st.integers(1, 8), st.sampled_from([1, 2, 4, 8]))
def test_the_makespan_in_evaluations_is_never_longer_than_with_data_groups_alone(
    items: int, groups: int, workers: int
) -> None:
    kept = items_kept_back([workers] * items, groups, 1)
    left, makespan = kept, float(ceil((items - kept) / groups))
    while left:
        shares = share_groups([workers] * left, groups, 1)
        makespan += ceil(workers / min(shares)) / workers
        left -= len(shares)
    assert makespan <= ceil(items / groups)


def test_nine_items_on_four_ranks_take_two_and_a_quarter_items_instead_of_three() -> None:
    assert items_kept_back([8] * 9, 4, 1) == 1
    assert share_groups([8], 4, 1) == [4]


def test_points_are_the_solvers_workers() -> None:
    assert points_of(make_item(0, solver={"kind": "ropa", "workers": 8}).solver) == 8
    assert points_of(make_item(0).solver) == 1
