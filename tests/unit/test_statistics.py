"""Intervals: what they are at known samples, and that they hold what they promise for few items."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from genrun.runner.statistics import MOST, are_binary, difference_interval, effect_size, estimate, mean_interval


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


def test_a_large_sample_has_students_interval_alone() -> None:
    values = np.random.default_rng(5).exponential(size=MOST + 1)
    expected = stats.t.interval(0.95, MOST, values.mean(), stats.sem(values))
    assert mean_interval(values.tolist()) == pytest.approx(expected)


def test_equal_values_have_an_interval_of_no_width() -> None:
    assert mean_interval([2.0] * 20) == (2.0, 2.0)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    intervals = [mean_interval(rng.normal(size=30).tolist()) or (1, 1) for _ in range(200)]
    assert 0.90 <= np.mean([low <= 0 <= high for low, high in intervals]) <= 0.98


def test_wilsons_interval_is_the_published_one() -> None:
    shares = [1.0] * 81 + [0.0] * 182
    assert mean_interval(shares, share=True) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    assert mean_interval([0.0] * 20, share=True) == pytest.approx((0.0, 0.1611), abs=1e-4)


def test_only_zeros_and_ones_count_as_a_share() -> None:
    assert are_binary([0.0, 1.0])
    assert not are_binary([0.5, 1.0])
    assert not are_binary([None])


def test_an_estimate_holds_mean_median_and_extremes() -> None:
    result = estimate([4.0, 1.0, 1.0, 2.0])
    assert result is not None
    assert (result.n, result.mean, result.median, result.minimum, result.maximum) == (4, 2.0, 1.5, 1.0, 4.0)
    assert result.low is not None and result.high is not None
    # Student: t(0.975, 3) = 3.1824 times the standard error of the mean, 0.70711.
    assert (result.low, result.high) == pytest.approx((2 - 2.2503, 2 + 2.2503), abs=1e-4)


def test_nothing_measured_is_no_estimate() -> None:
    assert estimate([]) is None


def test_one_item_has_a_mean_and_no_interval() -> None:
    result = estimate([3.0])
    assert result is not None
    assert (result.mean, result.low, result.high) == (3.0, None, None)


def test_ten_of_ten_right_is_not_certainty() -> None:
    result = estimate([1.0] * 10, share=True)
    assert result is not None
    assert result.high == pytest.approx(1.0)
    assert result.low == pytest.approx(0.7225, abs=1e-4)


def test_a_share_of_neither_yes_nor_no_is_measured_like_any_number() -> None:
    values = [0.5, 0.25, 0.75, 0.5]
    assert estimate(values, share=True) == estimate(values)


def test_an_estimate_has_the_interval_of_every_other_page() -> None:
    values = [float(value) for value in range(24)]
    result = estimate(values)
    assert result is not None
    assert (result.low, result.high) == mean_interval(values)
