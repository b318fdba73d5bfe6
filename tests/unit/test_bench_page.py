"""The page of a bench: its numbers, its charts, and that nothing foreign gets into it."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from genrun.runner.bench.charts import draw_problem, looks_of
from genrun.runner.bench.outputs import About, best_sentence, entry, grid_of, write_page
from genrun.runner.bench.results import BenchFolder, PointResult, crossings
from tests.fakes.bench import result

HOSTILE = '<script>alert("1")</script>{{ 7 * 7 }} $x_1$ \u202e'


def sweeps(*solvers: str, workers: tuple[int, ...] = (2, 8)) -> list[PointResult]:
    """Each solver takes two rounds more than the one before it, and half of them with four times the workers."""
    return [
        result(rmse, (rounds + 2 * turn) * 8 // k // 4 + 1, rmse, solver, k, elapsed_s=2.0, calls=20, evaluation_s=0.1)
        for turn, solver in enumerate(solvers)
        for k in workers
        for rmse, rounds in ((0.005, 40), (0.03, 30), (0.1, 20))
    ]


def page(path: Path, results: list[PointResult], **changes: Any) -> str:
    about = About(
        **{
            "title": "demo",
            "command": "genrun bench --model demo",
            "problems": {"demo": "a model"},
            "samples": ["seed 0: a cat"],
            "settings": {"sampling": {"steps": 50}},
            "machine": {"versions": {"torch": "2"}, "gpus": []},
            **changes,
        }
    )
    return Path(write_page(BenchFolder(path), about, results)).read_text(encoding="utf-8")


def charts_of(page: str) -> list[ElementTree.Element]:
    """The drawings of a page, which are well-formed XML."""
    return [ElementTree.fromstring(found) for found in re.findall(r'<svg class="canvas".*?\n  </svg>', page, re.DOTALL)]


def test_a_bench_is_a_page_with_charts(tmp_path: Path) -> None:
    results = sweeps("ropa", "paradigms")
    names = ["error-k2", "error-k8", "fronts-k2", "fronts-k8", "rounds-0.01", "rounds-0.02", "rounds-0.05"]
    assert sorted(draw_problem(results, crossings(results))) == names
    drawn = charts_of(page(tmp_path, results))
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")] == ["index.html"]
    labels = [chart.get("aria-label", "").partition(",")[0] for chart in drawn]
    assert labels == [
        *(f"Rounds at latent RMSE {error}" for error in ("0.01", "0.02", "0.05")),
        *["Latent RMSE against rounds"] * 2,
        *["Number of final states after each round"] * 2,
    ]
    titles = [title.text for title in drawn[0].iter("title")]
    assert len(titles) == 4 and titles[0] == "ropa, K = 2: reached 37.1 rounds"


def test_the_page_shows_what_was_measured_and_how_to_do_it_again(tmp_path: Path) -> None:
    text = page(tmp_path, [*sweeps("ropa", "paradigms"), refused()])
    assert best_sentence(crossings(sweeps("ropa", "paradigms"))) in html.unescape(text)
    for words in ("genrun bench --model demo", "seed 0: a cat", "sampling.steps", "1 cells were refused"):
        assert words in text
    assert 'href="results.csv"' in text
    rows = re.findall(r"<tr>\s*<th scope=\"row\">", text)
    assert len(rows) == 3 * 2 + 12


def refused() -> PointResult:
    return PointResult(result(1, 1, 0.2).cell, "0", 50, (), error="refused: workers: must be 2 or more")


def test_foreign_text_stays_text(tmp_path: Path) -> None:
    results = [result(0.03, 10, solver=HOSTILE), refused()]
    text = page(tmp_path, results, title=HOSTILE, command=HOSTILE, problems={"demo": HOSTILE}, samples=[HOSTILE])
    assert "<script" not in text
    assert "{{ 7 * 7 }}" in html.unescape(text)
    assert charts_of(text)


def test_the_page_has_no_script_and_refers_to_nothing_on_the_network(tmp_path: Path) -> None:
    text = page(tmp_path, sweeps("ropa"))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert html.unescape(policy).startswith("default-src 'none'; script-src 'none'; style-src 'sha256-")
    references = re.findall(r'(?:src|href|srcset)="([^"]*)"', text)
    assert references
    assert not [reference for reference in references if re.match(r"(?i)[a-z]+:|//", reference)]
    assert not re.search(r"\bstyle=|\bon\w+=", re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL))


def test_fewest_rounds_of_each_k_are_marked_and_bounds_are_named() -> None:
    grid = grid_of(crossings([*sweeps("ropa", "paradigms"), result(0.012, 3, None, "quick", 8)]), 0.02)
    assert grid.workers == (2, 8)
    assert [row[0].best for row in grid.rows.values()] == [True, False, False]
    assert [row[1].best for row in grid.rows.values()] == [False, False, True]
    assert grid.rows["quick"][0].text == ""
    assert (grid.rows["quick"][1].text, grid.rows["quick"][1].note) == ("≤ 3.0", "16.67×")


def test_a_sweep_that_stays_above_the_error_has_a_dash() -> None:
    (at_one, *_) = crossings([result(0.03, 9, None)])
    assert entry(at_one) == entry(at_one, 9.0)
    assert (entry(at_one).text, entry(at_one).note) == ("–", "not reached")
    assert best_sentence([at_one]) == "No solver came down to the errors of the table."


def test_the_first_sentence_names_all_who_are_level_and_the_next() -> None:
    sweep = [result(0.01, 10, 0.1), result(0.04, 6, 0.2)]
    level = [result(0.015, 8, None, "level")]
    slow = [result(0.015, 12, None, "slow")]
    assert best_sentence(crossings([*slow, *sweep])) == (
        "At latent RMSE 0.02 and K = 8, ropa takes the fewest rounds: 8.0 of 50, then slow with 12.0."
    )
    assert best_sentence(crossings([*slow, *sweep, *level])) == (
        "At latent RMSE 0.02 and K = 8, ropa and level take the fewest rounds: at most 8.0 of 50, then slow with 12.0."
    )


def test_looks_tell_more_solvers_apart_than_there_are_colours() -> None:
    looks = looks_of(f"solver {index}" for index in range(9))
    assert len(set(looks.values())) == 9
    assert 0 not in {colour for colour, _ in looks.values()}


@pytest.mark.parametrize("results", [[result(0.0, 50)], [result(0.03, 10)]])
def test_one_cell_is_enough_for_charts(results: list[PointResult]) -> None:
    charts = draw_problem(results, crossings(results))
    assert "fronts-k8" in charts
    assert not any(name.startswith("rounds") for name in charts)
    assert draw_problem([refused()], crossings([refused()])) == {}
