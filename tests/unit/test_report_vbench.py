"""VBench on the page: each dimension on its own range, beside the baseline's."""

from __future__ import annotations

from pathlib import Path

import pytest

from genrun.runner.report.build import build_report
from genrun.runner.report.page import collect
from genrun.runner.report.sections.vbench import DimensionRow, VBenchSection
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.runs import pin
from tests.fakes.scores import give, give_set, scored_run


def run_of(path: Path, style: float = 0.1, quality: float = 0.8) -> RunFolder:
    run = scored_run(path, {})
    give(run, "vbench.temporal_flickering", lambda item, number: 0.95 + 0.001 * (number % 4))
    give_set(run, "vbench.temporal_style", {"sequential": 0.182, "ropa": style}, higher=True)
    give_set(run, "vbench.quality", {"sequential": 0.8, "ropa": quality}, higher=True)
    return run


def bars(run: RunFolder) -> VBenchSection:
    found = collect(run).vbench
    assert found is not None
    return found


def row(found: VBenchSection, title: str) -> DimensionRow:
    (wanted,) = [row for _, rows in found.sections for row in rows if row.title == title]
    return wanted


def test_a_run_without_vbench_has_no_such_section(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "demo" / "run", {"psnr": lambda item, number: 30.0})
    assert collect(run).vbench is None
    assert 'id="vbench"' not in build_report(run).path.read_text()


def test_totals_stand_before_quality_and_semantic(tmp_path: Path) -> None:
    found = bars(run_of(tmp_path / "demo" / "run"))
    assert [(kind, [row.title for row in rows]) for kind, rows in found.sections] == [
        ("total", ["quality"]),
        ("quality", ["temporal flickering"]),
        ("semantic", ["temporal style"]),
    ]


def test_a_bar_is_as_long_as_the_value_on_the_leaderboards_range(tmp_path: Path) -> None:
    found = row(bars(run_of(tmp_path / "demo" / "run", 0.091)), "temporal style")
    assert found.range == "0 to 0.364"
    assert [(bar.label, bar.width) for bar in found.bars] == [("sequential", 50.0), ("ropa", 25.0)]


def test_dimensions_with_numbers_of_clips_have_an_interval(tmp_path: Path) -> None:
    found = bars(run_of(tmp_path / "demo" / "run"))
    bar = row(found, "temporal flickering").bars[0]
    assert bar.low is not None and bar.high is not None and bar.low < bar.width < bar.high
    assert row(found, "temporal style").bars[0].low is None


def test_without_a_baseline_the_sequential_cell_is_marked(tmp_path: Path) -> None:
    found = bars(run_of(tmp_path / "demo" / "run", 0.091))
    sequential, ropa = row(found, "temporal style").bars
    assert (found.against, sequential.mark, sequential.change) == ("sequential", None, "")
    assert (ropa.mark, ropa.change) == (50.0, "−0.091")


def test_the_baselines_numbers_are_marked(tmp_path: Path) -> None:
    pin(run_of(tmp_path / "demo" / "old", 0.273))
    found = bars(run_of(tmp_path / "demo" / "new", 0.182, quality=0.9))
    sequential, ropa = row(found, "temporal style").bars
    assert (found.against, sequential.change, ropa.mark) == ("old", "=", 75.0)
    assert row(found, "quality").bars[1].change == "+0.1"


@pytest.mark.parametrize("value", [-3.0, 9.0])
def test_values_beyond_the_range_stay_in_their_bar(value: float, tmp_path: Path) -> None:
    bar = row(bars(run_of(tmp_path / "demo" / "run", value)), "temporal style").bars[1]
    assert bar.width in (0.0, 100.0)


def test_the_page_has_a_bar_for_every_cell(tmp_path: Path) -> None:
    page = build_report(run_of(tmp_path / "demo" / "run")).path.read_text()
    assert page.index('id="summary"') < page.index('id="vbench"') < page.index('id="clips"')
    assert page.count('class="value"') == 6
