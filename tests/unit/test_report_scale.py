"""Reports of thousands of items stay small."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from genrun.runner.report.build import build_report
from genrun.runner.report.render import cut
from genrun.runner.report.sections.outliers import MOST_FAILURES
from tests.large_run import make_large_run
from tests.sample_run import ROPA, SEQUENTIAL

pytestmark = pytest.mark.e2e
MOST_BYTES = 2_000_000
MOST_BYTES_OF_ITEMS = 500_000


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"words": 80, "solvers": (ROPA,)},
        {"is_failed": True},
    ],
    ids=["five solvers", "as many long prompts", "all failed with long messages"],
)
def test_a_report_of_2000_items_stays_under_2_megabytes(options: Mapping[str, Any], tmp_path: Path) -> None:
    run = make_large_run(tmp_path / "demo" / "run", **options)
    report = build_report(run)
    assert report.items == 2000
    assert report.path.stat().st_size < MOST_BYTES
    assert sum(path.stat().st_size for path in (run.report_dir / "items").iterdir()) < MOST_BYTES_OF_ITEMS


def test_of_many_failures_the_first_are_told_and_the_rest_counted(tmp_path: Path) -> None:
    run = make_large_run(tmp_path / "demo" / "run", items=MOST_FAILURES + 5, is_failed=True)
    page = build_report(run).path.read_text(encoding="utf-8")
    assert page.count('<p class="error">') == MOST_FAILURES
    assert f'<span class="tally">{MOST_FAILURES + 5}</span>' in page
    assert f"{MOST_FAILURES} of {MOST_FAILURES + 5} are told here" in page
    few = build_report(make_large_run(tmp_path / "demo" / "few", items=5, is_failed=True)).path.read_text(
        encoding="utf-8"
    )
    assert "are told here" not in few


def test_what_is_cut_says_how_much_it_was() -> None:
    assert cut("abc", 3) == "abc"
    assert cut("abcdef" * 1000, 3) == "abc… and 5,997 letters more"


def test_a_dot_for_each_item_is_drawn(tmp_path: Path) -> None:
    run = make_large_run(tmp_path / "demo" / "run", items=500, solvers=(SEQUENTIAL, ROPA))
    build_report(run)
    page = (run.report_dir / "index.html").read_text(encoding="utf-8")
    dots = [ElementTree.fromstring(group) for group in re.findall(r'<g class="dots s\d">.*?</g>', page, re.DOTALL)]
    assert [len(group) for group in dots] == [250, 250]
    places = [[float(dot.get(name, "").rstrip("%")) for name in ("cx", "cy")] for group in dots for dot in group]
    assert all(0 < x < 100 and 0 < y < 100 for x, y in places)
    assert len({y for _, y in places}) > 250
