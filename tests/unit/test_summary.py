"""Summaries: groups of the matrix in the order of the plan, their counts, means and intervals."""

from __future__ import annotations

import pytest

from genrun.runner.score.summary import summarize
from genrun.runner.store.records import Record, SamplerStats, Score
from tests.sample_run import ROPA, SEQUENTIAL, work_item


def done(item_id: str, rounds: int) -> Record:
    return Record(item_id, "done", sampler=SamplerStats(20, rounds, 4 * rounds))


def test_items_are_grouped_by_the_axes_of_the_matrix_in_the_order_of_the_plan() -> None:
    items = [work_item(prompt, 0, solver) for prompt in ("a", "b") for solver in (SEQUENTIAL, ROPA)]
    groups = summarize(items, {}, [])
    assert [(dict(group.axes), group.items) for group in groups] == [
        ({"solver": "sequential"}, 2),
        ({"solver": "ropa K=8"}, 2),
    ]
    assert [group.is_reference for group in groups] == [True, False]


def test_a_job_without_a_matrix_is_grouped_by_solver() -> None:
    items = [work_item(prompt, 0, ROPA, axes=False) for prompt in ("a", "b")]
    assert [(dict(group.axes), group.items) for group in summarize(items, {}, [])] == [({"solver": "ropa"}, 2)]


def test_done_failed_and_pending_items_are_counted_apart() -> None:
    items = [work_item("a", seed, ROPA) for seed in range(4)]
    records = {
        items[0].id: done(items[0].id, 5),
        items[1].id: done(items[1].id, 10),
        items[2].id: Record(items[2].id, "failed", error={"kind": "Error"}),
    }
    (group,) = summarize(items, records, [])
    assert (group.items, group.done, group.failed, group.pending) == (4, 2, 1, 1)


def test_speedup_is_the_mean_of_the_items_own_speedups() -> None:
    items = [work_item("a", seed, ROPA) for seed in range(2)]
    records = {items[0].id: done(items[0].id, 5), items[1].id: done(items[1].id, 10)}
    (group,) = summarize(items, records, [])
    assert group.rounds and group.nfe and group.speedup
    assert (group.rounds.mean, group.nfe.mean, group.speedup.mean) == (7.5, 30.0, 3.0)


def test_items_without_a_value_lower_n_and_not_the_mean() -> None:
    items = [work_item("a", seed, ROPA) for seed in range(3)]
    records = {item.id: done(item.id, 5) for item in items}
    scores = [
        Score(items[0].id, "psnr", 30.0, True),
        Score(items[1].id, "psnr", None, True, "no media file"),
        Score(items[2].id, "ssim", None, True, "no media file"),
    ]
    (group,) = summarize(items, records, scores)
    assert (group.metrics["psnr"].n, group.metrics["psnr"].mean) == (1, 30.0)
    assert "ssim" not in group.metrics


def test_scores_of_items_that_have_since_failed_are_left_out() -> None:
    item = work_item("a", 0, ROPA)
    failed = {item.id: Record(item.id, "failed", error={"kind": "Error"})}
    (group,) = summarize([item], failed, [Score(item.id, "psnr", 30.0, True)])
    assert group.metrics == {}


def test_parts_of_a_share_get_its_interval() -> None:
    items = [work_item("a", seed, ROPA) for seed in range(10)]
    records = {item.id: done(item.id, 5) for item in items}
    scores = [Score(item.id, "checker.shape", 1.0, True) for item in items]
    (group,) = summarize(items, records, scores)
    assert group.metrics["checker.shape"].low == pytest.approx(0.7225, abs=1e-4)


def test_two_items_that_differ_have_no_interval_below_no_calls_and_none_of_more_than_all() -> None:
    items = [work_item("a", seed, ROPA) for seed in range(2)]
    records = {items[0].id: done(items[0].id, 2), items[1].id: done(items[1].id, 30)}
    shares = [Score(item.id, "checker.shape", value, True) for item, value in zip(items, (0.4, 0.9), strict=True)]
    (group,) = summarize(items, records, shares)
    for found in (group.rounds, group.speedup):
        assert found is not None
        assert found.low == 0
        assert found.high is not None
        assert found.high > found.maximum
    share = group.metrics["checker.shape"]
    assert (share.low, share.high) == (0, 1)


def test_a_number_of_a_set_is_of_the_items_that_are_in_it() -> None:
    items = [work_item(prompt, 0, ROPA) for prompt in ("a", "b", "c")]
    records = {item.id: done(item.id, 5) for item in items}
    rows = [
        Score("set:ropa K=8", "fvd", 40.0, False),
        Score(items[1].id, "fvd", None, False, "4 frames, fewer than the 8 that fvd looks at"),
    ]
    (group,) = summarize(items, records, rows)
    assert (group.metrics["fvd"].n, group.metrics["fvd"].mean) == (2, 40.0)
