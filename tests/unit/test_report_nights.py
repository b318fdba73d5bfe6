"""The history on the page: the last nights, their charts, limits and commits."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from genrun.runner import history
from genrun.runner.report.build import build_report
from genrun.runner.report.sections.nights import NightsSection, collect_nights, limit_of
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.nights import CellMean, Night, NightGate
from tests.fakes.nights import gate, night
from tests.fakes.scores import scored_run

HOSTILE = '<script>alert("1")</script>'


def page_run(tmp_path: Path, *nights: Night) -> RunFolder:
    """A run whose job has these nights, and is the last of them."""
    history.rebuild(tmp_path)
    for each in nights:
        history.record(tmp_path, each)
    name = nights[-1].run if nights else "run"
    return scored_run(tmp_path / "demo" / name, {"psnr": lambda item, number: 33.0 + number}, prompts=["a cat"])


def collect(run: RunFolder, **options: Any) -> NightsSection:
    return collect_nights(run, {"sequential": 0, "ropa": 1}, **options)


def test_nights_are_listed_oldest_first_with_state_and_commit(tmp_path: Path) -> None:
    run = page_run(tmp_path, night(1, 33.0), night(2, 29.0, state="failed", commit="b" * 40 + "+"), night(3, 34.0))
    rows = collect(run).rows
    assert [(row.night, row.state, row.commit, row.is_new_commit, row.is_this) for row in rows] == [
        ("2026-01-01", "passed", "aaaaaaaa", False, False),
        ("2026-01-02", "failed", "bbbbbbbb+", True, False),
        ("2026-01-03", "passed", "aaaaaaaa", True, True),
    ]
    assert collect(run).counts == [("passed", 2), ("failed", 1)]


def test_one_night_is_no_history(tmp_path: Path) -> None:
    assert collect(page_run(tmp_path, night(1, 33.0))) == NightsSection()
    assert collect(scored_run(tmp_path / "other" / "run", {})) == NightsSection()


def test_the_last_thirty_nights_are_shown_up_to_that_of_the_page(tmp_path: Path) -> None:
    nights = [night(number, 33.0) for number in range(1, 32)]
    run = page_run(tmp_path, *nights)
    assert [row.night[-2:] for row in collect(run).rows] == [f"{number:02}" for number in range(2, 32)]
    early = scored_run(tmp_path / "demo" / "run-3", {})
    assert [row.night[-2:] for row in collect(early).rows] == ["01", "02", "03"]


def test_nights_of_other_jobs_are_not_mixed_in(tmp_path: Path) -> None:
    run = page_run(tmp_path, night(1, 33.0), replace(night(2, 99.0), job="other"), night(3, 33.0))
    assert len(collect(run).rows) == 2


def test_a_chart_has_a_line_a_band_dots_and_the_limit(tmp_path: Path) -> None:
    (shown,) = collect(page_run(tmp_path, night(1, 33.0), night(2, 31.0), night(3, 35.0))).charts
    (line,) = shown.plot.series
    assert (shown.title, shown.limits, line.label, line.colour) == ("PSNR", ["at least 30.0"], "ropa", 1)
    assert [mark.x for mark in line.marks] == [16.67, 50.0, 83.33]
    assert line.marks[2].y < line.marks[0].y < line.marks[1].y
    assert line.band.endswith("Z") and len(re.findall("[ML]", line.band)) == 6
    (limit,) = line.guides
    heights = {float(place.split()[1]) for place in re.split(r" ?[ML]", limit.path)[1:]}
    assert len(heights) == 1 and heights.pop() > line.marks[1].y
    assert shown.readings[0][1] == "31.0 dB [30.0 dB, 32.0 dB], n = 8"


def test_a_night_without_a_measure_leaves_a_gap(tmp_path: Path) -> None:
    run = page_run(tmp_path, night(1, 33.0), night(2, 0.0, measures=(), gates=(), state="interrupted"), night(3, 35.0))
    shown = collect(run).charts[0]
    (line,) = shown.plot.series
    assert len(line.marks) == 2
    assert line.line.count("M") == 2 and shown.readings[0][1] == ""


def test_a_failed_gate_marks_its_night(tmp_path: Path) -> None:
    bad = (NightGate("ropa", gate("psnr", "min", 30.0, 29.0, "failed")),)
    run = page_run(tmp_path, night(1, 33.0), night(2, 29.0, gates=bad, state="failed"))
    (shown,) = collect(run).charts
    assert [mark.kind for mark in shown.plot.series[0].marks] == ["passed", "failed"]
    assert shown.failed == 1


@pytest.mark.parametrize(("rule", "change", "limit"), [("max_drop", 2.0, 32.0), ("max_rise", -2.0, 38.0)])
def test_the_limit_of_a_drop_or_rise_lies_off_the_baseline(rule: str, change: float, limit: float) -> None:
    """The baseline was 35, the night has 33: a drop of 2, a rise of -2; 3 are allowed either way."""
    each = NightGate("ropa", gate("psnr", rule, 3.0, change))
    assert limit_of(each, night(1, 33.0, gates=(each,))) == pytest.approx(limit)


def test_metrics_with_gates_come_first_and_costs_only_with_one(tmp_path: Path) -> None:
    measures = tuple(
        CellMean("ropa", name, 8, 1.0, 0.9, 1.1) for name in ("nfe", "ssim", "rounds", "psnr", "drift.ssim")
    )
    gates = (NightGate("ropa", gate("rounds", "max", 2.0, 1.0)),)
    run = page_run(tmp_path, *(night(n, 1.0, measures=measures, gates=gates) for n in (1, 2)))
    assert [shown.metric for shown in collect(run).charts] == ["rounds", "ssim", "psnr", "drift.ssim"]
    assert [shown.is_gated for shown in collect(run).charts] == [True, False, False, False]


def test_other_nights_are_linked_where_their_report_lies(tmp_path: Path) -> None:
    run = page_run(tmp_path, night(1, 33.0), night(2, 33.0, is_removed=True), night(3, 33.0))
    for name in ("run-1", "run-2"):
        page = tmp_path / "demo" / name / "report" / "index.html"
        page.parent.mkdir(parents=True)
        page.touch()
    assert [row.href for row in collect(run).rows] == ["../../run-1/report/index.html", "", ""]
    assert [row.href for row in collect(run, link=False).rows] == ["", "", ""]


def test_a_damaged_history_is_said_and_the_page_is_written(tmp_path: Path) -> None:
    run = page_run(tmp_path, night(1, 33.0), night(2, 33.0))
    (tmp_path / "history.sqlite3").write_bytes(b"no database " * 100)
    assert "genrun history --rebuild" in collect(run).note
    assert "genrun history --rebuild" in build_report(run).path.read_text()


def test_the_page_shows_the_nights_and_keeps_hostile_text(tmp_path: Path) -> None:
    measures = (CellMean(HOSTILE, HOSTILE, 8, 1.0, 0.5, 1.5),)
    nights = [night(n, 33.0, summary=HOSTILE, commit=HOSTILE, measures=measures, gates=()) for n in (1, 2)]
    page = build_report(page_run(tmp_path, *nights)).path.read_text()
    assert 'id="nights"' in page and "2026-01-02" in page
    assert "<script>alert" not in page and page.count("<script") == 2


def test_summaries_have_a_small_line_over_the_nights(tmp_path: Path) -> None:
    run = page_run(tmp_path, night(1, 33.0), night(2, 31.0))
    found = collect(run)
    assert list(found.trends) == [("ropa", "psnr")]
    assert found.trends["ropa", "psnr"].startswith("M25 8 L75 92")
    assert f'<path d="{found.trends["ropa", "psnr"]}"/>' in build_report(run).path.read_text()
