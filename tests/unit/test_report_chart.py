"""Geometry of the page's own charts."""

from __future__ import annotations

import pytest

from genrun.runner.report import chart
from genrun.runner.report.chart import Scale


def test_a_scale_leaves_room_at_both_ends() -> None:
    scale = Scale.over([2.0, 4.0, 3.0])
    assert scale.low < 2.0 < 4.0 < scale.high
    assert scale.at(3.0) == 50.0
    assert 0 < scale.at(2.0) < 10


def test_values_beyond_a_scale_stay_at_its_ends() -> None:
    scale = Scale(0.0, 1.0)
    assert (scale.at(-5.0), scale.at(7.0)) == (0.0, 100.0)


@pytest.mark.parametrize("values", [[], [0.0], [3.0, 3.0], [-1e-9]])
def test_a_scale_of_one_value_or_none_is_not_empty(values: list[float]) -> None:
    scale = Scale.over(values)
    assert scale.high > scale.low
    assert Scale.around(0.0, values).at(0.0) == 50.0


def test_ticks_are_round_and_within() -> None:
    ticks = Scale(0.0, 1.0).ticks("share")
    assert (ticks[0][1], ticks[-1][1]) == ("0%", "100%")
    assert all(0 <= place <= 100 for place, _ in ticks)
    assert [label for _, label in Scale(-0.03, 0.05).ticks("number")] == ["−0.02", "0", "0.02", "0.04"]


def test_an_interval_lies_between_its_ends_beside_the_mark() -> None:
    bar = chart.bar(Scale(0.0, 10.0), 5.0, 4.0, 8.0, 9.0)
    assert (bar.at, bar.low, bar.high, bar.width, bar.mark) == (50.0, 40.0, 80.0, 40.0, 90.0)
    assert chart.bar(Scale(0.0, 10.0), 5.0, None, None).width == 0


def test_a_line_breaks_where_nothing_was_measured() -> None:
    assert chart.line([(0, 1), (2, 3), None, (4, 5)]) == "M0 1 L2 3 M4 5"
    assert chart.line([None]) == ""


def test_a_band_goes_there_and_back() -> None:
    assert chart.band([(0, 9), (1, 9), None], [(0, 1), (1, 2), None]) == "M0 1 L1 2 L1 9 L0 9Z"


def test_a_spark_line_needs_two_values_that_differ_and_fits_its_box() -> None:
    assert chart.spark([1.0, None]) == chart.spark([2.0, 2.0]) == ""
    numbers = [float(word.strip("ML")) for word in chart.spark([3.0, None, 1.0, 2.0]).split()]
    assert all(0 <= number <= 100 for number in numbers)
