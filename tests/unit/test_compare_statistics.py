"""Intervals: what they are at known samples, and that they hold what they promise for few items."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from genrun.runner.compare.statistics import (
    difference_interval,
    effect_size,
    mean_interval,
    student_quantile,
)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30, 31, 400])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_students_quantile_is_scipys(freedom: int, confidence: float) -> None:
    assert student_quantile(confidence, freedom) == pytest.approx(stats.t.ppf((1 + confidence) / 2, freedom), rel=1e-9)


def test_few_items_get_students_interval() -> None:
    values = [0.1, 0.5, 0.2, 0.9, 0.4]
    expected = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert mean_interval(values) == pytest.approx(expected)


def test_one_item_has_no_interval() -> None:
    assert mean_interval([1.0]) is None
    assert difference_interval([]) is None


def test_the_bootstrap_is_the_same_every_time_and_follows_a_skewed_sample() -> None:
    values = np.random.default_rng(0).exponential(size=20).tolist()
    interval = mean_interval(values)
    assert interval == mean_interval(values) != mean_interval(values, seed=1)
    assert interval is not None
    assert interval[1] - np.mean(values) > 1.05 * (np.mean(values) - interval[0]) > 0


def test_many_items_get_the_normal_interval() -> None:
    values = np.random.default_rng(1).normal(size=1000)
    low, high = mean_interval(values.tolist()) or (0, 0)
    half = 1.96 * values.std() / np.sqrt(1000)
    assert (values.mean() - low, high - values.mean()) == pytest.approx((half, half), rel=0.08)


def test_more_confidence_is_a_wider_interval() -> None:
    values = np.random.default_rng(2).normal(size=12).tolist()
    widths = [high - low for low, high in (mean_interval(values, level) or (0, 0) for level in (0.8, 0.95, 0.99))]
    assert widths == sorted(widths)


@pytest.mark.parametrize("n", [3, 8, 24])
def test_an_interval_of_few_differences_misses_the_truth_as_seldom_as_it_says(n: int) -> None:
    samples = np.random.default_rng(n).normal(size=(300, n))
    intervals = [difference_interval(sample.tolist()) or (0, 0) for sample in samples]
    misses = np.mean([low > 0 or high < 0 for low, high in intervals])
    assert misses <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300)


def test_shares_of_which_all_agree_keep_an_interval() -> None:
    low, high = mean_interval([1.0] * 10, share=True) or (0, 0)
    assert 0.65 < low < 0.75
    assert high == 1.0
    low, high = difference_interval([0.0] * 10, share=True) or (0, 0)
    assert low == -high < -0.1


def test_four_pairs_that_differ_are_no_proof_and_six_are() -> None:
    few, many = ([1.0] * k + [0.0] * (24 - k) for k in (4, 6))
    assert (
        (difference_interval(few, share=True) or (0, 0))[0] < 0 < (difference_interval(many, share=True) or (0, 0))[0]
    )


def test_the_effect_size_is_the_mean_in_standard_deviations() -> None:
    assert effect_size([1.0, 2.0, 3.0]) == pytest.approx(2.0)
    assert effect_size([0.5, 0.5]) is None
    assert effect_size([1.0]) is None
