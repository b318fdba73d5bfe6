"""Geometry of the page's own charts."""

from __future__ import annotations

import pytest

from genrun.runner.report import charts
from genrun.runner.report.charts import Scale


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


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.003, 0.2, ["0.005", "0.01", "0.02", "0.05", "0.1", "0.2"]),
        (1e-7, 2.0, ["1e−07", "1e−06", "1e−05", "0.0001", "0.001", "0.01", "0.1", "1"]),
    ],
)
def test_ticks_of_a_logarithmic_scale_are_powers_and_more_where_those_are_few(
    low: float, high: float, labels: list[str]
) -> None:
    scale = Scale(low, high, is_log=True)
    assert [label for _, label in scale.ticks()] == labels
    assert scale.at((low * high) ** 0.5) == 50
    assert (scale.at(0.0), scale.down(high)) == (0, 0)


def test_ticks_of_counts_are_whole() -> None:
    assert [label for _, label in Scale(0.0, 2.0).ticks(whole=True)] == ["0", "1", "2"]
    assert [label for _, label in Scale(0.0, 50.0).ticks(whole=True)] == ["0", "20", "40"]


def test_labels_cover_no_point_and_no_other_label() -> None:
    points = [("sequential", 0, 5.0, 100.0), ("one", 1, 50.0, 50.0), ("two", 2, 51.0, 51.0), ("last", 3, 99.0, 2.0)]
    labels = charts.place_labels(points)
    assert [label.text for label in labels] == ["sequential", "one", "two", "last"]
    assert labels[3].anchor == "end"
    assert len({(label.dx, label.dy) for label in labels[1:3]}) == 2
    assert charts.place_labels([("x" * 100, 1, 5.0, 5.0)])[0].text == "x" * 39 + "…"


def test_an_interval_lies_between_its_ends_beside_the_mark() -> None:
    bar = charts.bar(Scale(0.0, 10.0), 5.0, 4.0, 8.0, 9.0)
    assert (bar.at, bar.low, bar.high, bar.width, bar.mark) == (50.0, 40.0, 80.0, 40.0, 90.0)
    assert charts.bar(Scale(0.0, 10.0), 5.0, None, None).width == 0


def test_a_line_breaks_where_nothing_was_measured() -> None:
    assert charts.line([(0, 1), (2, 3), None, (4, 5)]) == "M0 1 L2 3 M4 5"
    assert charts.line([None]) == ""


def test_a_band_goes_there_and_back() -> None:
    assert charts.band([(0, 9), (1, 9), None], [(0, 1), (1, 2), None]) == "M0 1 L1 2 L1 9 L0 9Z"


def test_a_spark_line_needs_two_values_that_differ_and_fits_its_box() -> None:
    assert charts.spark([1.0, None]) == charts.spark([2.0, 2.0]) == ""
    numbers = [float(word.strip("ML")) for word in charts.spark([3.0, None, 1.0, 2.0]).split()]
    assert all(0 <= number <= 100 for number in numbers)
