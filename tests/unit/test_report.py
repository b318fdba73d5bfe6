"""The report as files: what it says, in which order, and that nothing foreign gets into it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from genrun.runner import numbers
from genrun.runner.cli import main
from genrun.runner.report.build import build_report
from genrun.runner.report.page import collect
from genrun.runner.report.render import address, embed_json
from genrun.runner.report.sections.clips import colours
from genrun.runner.report.sections.environment import flatten
from genrun.runner.report.sections.speed import collect_speed
from genrun.runner.report.sections.summary import build_table, headings
from genrun.runner.report.sections.verdict import judge
from genrun.runner.score.metrics import wanted_metrics
from genrun.runner.score.scoring import score_run
from genrun.runner.score.summary import Group, summarize
from genrun.runner.statistics import Estimate
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import Score, format_record
from tests.fakes.scores import give
from tests.sample_run import ALL_SOLVERS, CAPTIONS, ROPA, SEQUENTIAL, FakeSolver, make_run

HOSTILE = '<script>alert("1")</script>\n</title>{{ 7 * 7 }} & \u202eevil'
ERROR = {
    "kind": "OutOfMemoryError",
    "message": "the decoder needs <3 GiB>",
    "remedy": "Lower sampling.num_frames.",
    "rank": 0,
    "log": "logs/torchrun-1/rank 0.log",
}


def scored(path: Path, metrics: tuple[str, ...] = ("latent_rmse", "checker"), **options: Any) -> RunFolder:
    run = make_run(path / "demo" / "run", **options)
    score_run(run, wanted_metrics(run, metrics))
    return run


def page_of(run: RunFolder, **options: Any) -> str:
    return build_report(run, **options).path.read_text(encoding="utf-8")


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def charts_of(page: str) -> list[ElementTree.Element]:
    """The drawings of a page, which are well-formed XML."""
    return [ElementTree.fromstring(found) for found in re.findall(r'<svg class="canvas".*?\n  </svg>', page, re.DOTALL)]


def set_media(run: RunFolder, index: int, media: str) -> None:
    record = run.record(run.items()[index].id)
    assert record is not None
    run.record_path(record.item_id).write_bytes(format_record(replace(record, media=media)))


def test_a_report_is_a_page_with_its_charts(tmp_path: Path) -> None:
    report = build_report(scored(tmp_path))
    folder = report.path.parent
    assert [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.*"))] == [
        "index.html",
        "items/all.html",
    ]
    speed, fronts = charts_of(report.path.read_text())
    assert (speed.get("role"), fronts.get("role")) == ("img", "img")
    assert speed.get("aria-label", "").startswith("Speedup in model calls against latent RMSE")
    assert fronts.get("aria-label", "").startswith("Number of final states after each round")
    assert (report.items, report.failed) == (4, 0)


def test_the_page_goes_from_the_verdict_by_failures_and_numbers_to_the_clips(tmp_path: Path) -> None:
    page = page_of(scored(tmp_path, failed={3: ERROR}))
    parts = [
        'class="verdict"',
        'id="failed"',
        'id="summary"',
        'id="speed"',
        "Small dots are items",
        "Fronts.",
        'id="clips"',
    ]
    parts += ['id="reproduce"', 'id="definitions"', 'id="environment"']
    places = [page.index(part) for part in parts]
    assert places == sorted(places)


def test_a_failure_comes_with_error_remedy_log_and_command(tmp_path: Path) -> None:
    run = scored(tmp_path, failed={3: ERROR})
    page = page_of(run)
    assert "OutOfMemoryError" in page
    assert "the decoder needs &lt;3 GiB&gt;" in page
    assert "Lower sampling.num_frames." in page
    assert 'href="../logs/torchrun-1/rank%200.log"' in page
    assert f'data-copy="genrun retry {run.path} --item {run.items()[3].id}"' in page


def test_a_run_without_failures_has_no_such_section(tmp_path: Path) -> None:
    assert 'id="failed"' not in page_of(scored(tmp_path))


def test_a_hostile_prompt_stays_text(tmp_path: Path) -> None:
    run = scored(tmp_path, prompts=(HOSTILE,), failed={1: {"kind": HOSTILE, "message": HOSTILE, "remedy": HOSTILE}})
    page = page_of(run)
    assert "<script>alert" not in page
    assert page.count("<script") == 2
    assert "{{ 7 * 7 }}" in html.unescape(page)
    assert data_of(page)["prompts"] == [HOSTILE]


def test_hostile_labels_and_names_stay_text(tmp_path: Path) -> None:
    solver = FakeSolver("<b>$x$ & _\x1b", "ropa", 7, 52, 0.02)
    page = page_of(scored(tmp_path, solvers=(SEQUENTIAL, solver)))
    assert "<b>" not in page
    assert page.count("&lt;b&gt;$x$ &amp; _") > 5


def test_a_lone_surrogate_in_a_prompt_does_not_break_the_page(tmp_path: Path) -> None:
    page = page_of(make_run(tmp_path / "demo" / "run", prompts=("half \ud83d of a smile",)))
    assert data_of(page)["prompts"] == ["half \ud83d of a smile"]


def test_data_in_the_page_cannot_close_its_script() -> None:
    assert "<" not in embed_json({"a": "</script><!--<script>", "b": "\u2028"})


def test_the_policy_allows_this_script_and_style_alone(tmp_path: Path) -> None:
    page = page_of(scored(tmp_path))
    (content,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    policy = html.unescape(content)
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "http" not in policy
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        source = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert source is not None
        digest = base64.b64encode(hashlib.sha256(source[1].encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy


def test_the_page_refers_to_nothing_on_the_network(tmp_path: Path) -> None:
    page = page_of(scored(tmp_path))
    references = re.findall(r'(?:src|href|srcset)="([^"]*)"', page)
    assert references
    assert not [reference for reference in references if re.match(r"(?i)[a-z]+:|//", reference)]
    assert not re.search(r"\bstyle=|\bon\w+=", re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL))


def test_media_are_linked_beside_the_report(tmp_path: Path) -> None:
    run = scored(tmp_path)
    clips = [clip for row in data_of(page_of(run))["rows"] for clip in row["c"]]
    assert len(clips) == 4
    for clip in clips:
        assert (run.report_dir / unquote(clip["m"])).resolve().is_file()


def test_a_standalone_report_carries_its_media(tmp_path: Path) -> None:
    run = scored(tmp_path, failed={3: ERROR})
    page = page_of(run, standalone=True)
    moved = run.report_dir.rename(tmp_path / "elsewhere")
    clips = [clip for row in data_of(page)["rows"] for clip in row["c"] if "m" in clip]
    assert len(clips) == 3
    assert all((moved / clip["m"]).is_file() for clip in clips)
    assert 'href="..' not in page


@pytest.mark.parametrize("path", ["/etc/passwd", "media/../../../secret.mp4"])
def test_a_record_that_points_out_of_the_run_is_not_linked_nor_copied(path: str, tmp_path: Path) -> None:
    run = scored(tmp_path)
    set_media(run, 1, path)
    page = page_of(run, standalone=True)
    assert data_of(page)["rows"][0]["c"][1]["m"] == ""
    assert address(path, "../") == ""


def test_addresses_are_quoted() -> None:
    assert address("media/a b#?.mp4", "../") == "../media/a%20b%23%3F.mp4"


def test_the_same_run_gives_the_same_page_and_pictures(tmp_path: Path) -> None:
    run = scored(tmp_path)

    def files() -> dict[str, bytes]:
        build_report(run)
        return {path.name: path.read_bytes() for path in run.report_dir.rglob("*.*")}

    assert files() == files()


def test_clips_of_a_row_share_prompt_and_seed_and_differ_in_the_solver(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", solvers=ALL_SOLVERS, seeds=(0, 1), files=False, latents=False)
    data = data_of(page_of(run))
    assert data["solvers"] == [solver.label for solver in ALL_SOLVERS]
    assert [(row["p"], row["s"]) for row in data["rows"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for row in data["rows"]:
        assert [clip["k"] for clip in row["c"]] == [0, 1, 2, 3, 4]
        assert [clip["r"] for clip in row["c"]] == [solver.rounds for solver in ALL_SOLVERS]


def test_a_clip_has_its_numbers_in_full_beside_what_is_read(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", solvers=(SEQUENTIAL, ROPA), seeds=(0, 1), files=False, latents=False)
    give(run, "latent_rmse", lambda item, number: 0.04321 + 1e-7 * number)
    data = data_of(page_of(run))
    clips = [clip for row in data["rows"] for clip in row["c"]]
    at = data["metrics"].index("latent RMSE")
    assert {clip["v"][at] for clip in clips} == {"0.0432"}
    assert len({clip["y"][at] for clip in clips}) == len(clips)
    assert {clip["l"] for clip in clips} == {round(record.elapsed_s, 6) for record in run.records().values()}


def test_a_clip_says_which_attributes_are_wrong(tmp_path: Path) -> None:
    run = scored(tmp_path)
    path = run.scores_path("checker")
    path.write_text(path.read_text().replace('"checker.shape", "value": 1.0', '"checker.shape", "value": 0.0', 1))
    assert data_of(page_of(run))["rows"][0]["c"][0]["bad"] == ["shape"]


def test_what_is_not_done_has_no_media(tmp_path: Path) -> None:
    run = scored(tmp_path, failed={1: ERROR}, pending=(3,))
    first, second = data_of(page_of(run))["rows"]
    assert (first["c"][1]["t"], "m" in first["c"][1]) == ("failed", False)
    assert (second["c"][1]["t"], "m" in second["c"][1]) == ("pending", False)


def test_without_scores_the_page_says_how_to_get_them(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run")
    page = page_of(run)
    assert "its distance to the sequential sampler was not scored" in page
    assert f"genrun score {run.path} --metrics latent_rmse" in page
    assert "No picture of speed against error" in page and "Speedup in model calls against" not in page


def test_what_was_not_scored_is_on_the_page_with_its_reason(tmp_path: Path) -> None:
    page = page_of(scored(tmp_path, latents=False))
    assert "no latents were saved; set output.save_latents: true" in page
    assert "this is the sequential item" not in page


def test_an_old_chart_does_not_stay_on_a_page_without_its_scores(tmp_path: Path) -> None:
    run = scored(tmp_path)
    build_report(run)
    run.scores_path("latent_rmse").unlink()
    assert "Speedup in model calls against" not in page_of(run)


def test_a_run_path_is_quoted_for_the_shell(tmp_path: Path) -> None:
    run = make_run(tmp_path / "it's a job; rm" / "run", files=False, latents=False)
    command = re.findall(r'data-copy="(genrun verify [^"]*)"', page_of(run))
    assert html.unescape(command[0]).startswith("genrun verify '")


def test_the_chart_takes_fronts_of_different_lengths_and_steps(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", solvers=ALL_SOLVERS, files=False, latents=False)
    records = run.records()
    item = run.items()[1]
    stats = records[item.id].sampler
    assert stats is not None
    records[item.id] = replace(records[item.id], sampler=replace(stats, num_steps=12, rounds=3, fronts=(4, 9, 12)))
    groups = summarize(run.items(), records, [])
    found = collect_speed(list(zip(groups, [0, 1, 2, 3, 4], strict=True)), records, [])
    assert found.errors is None and found.fronts is not None
    assert found.fronts.x_title == "rounds, in % of the sequential steps"
    assert len(found.fronts.series) == len(ALL_SOLVERS)
    assert all(0 <= x <= 100 and 0 <= y <= 100 for each in found.fronts.series for x, y in each.dots)


@pytest.mark.parametrize("errors", [(0.0, 0.0), (0.01, 0.02), (0.0, 1e-6), (1e-6, 1.0)])
def test_the_chart_of_errors_takes_any_range(errors: tuple[float, float], tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", files=False, latents=False)
    ours = [item for item in run.items() if not item.is_reference]
    scores = [Score(item.id, "latent_rmse", error, False) for item, error in zip(ours, errors, strict=True)]
    groups = summarize(run.items(), run.records(), scores)
    found = collect_speed(list(zip(groups, [0, 1], strict=True)), run.records(), scores).errors
    assert found is not None
    assert [label.text for label in found.labels] == ["sequential", "ropa K=8"]
    sequential, ropa = found.series
    assert sequential.marks[0].y == 100 and sequential.marks[0].x < ropa.marks[0].x < 100
    assert len(ropa.dots) == 2 and all(0 < y <= 100 for _, y in ropa.dots)
    assert [y for _, y in ropa.dots] == sorted((y for _, y in ropa.dots), reverse=True)
    assert ropa.marks[0].title.startswith("ropa K=8: 2.86×, ")


def group(
    kind: str, *, items: int = 2, done: int = 2, failed: int = 0, speedup: float = 1.0, **metrics: float
) -> Group:
    def flat(value: float) -> Estimate:
        return Estimate(done, value, value, value, value, value, value)

    measured = {name: flat(value) for name, value in metrics.items()}
    costs = (flat(3), flat(9), flat(speedup))
    return Group(
        {"solver": kind}, kind, items, done, failed, *costs, measured, is_reference=kind == "sequential", num_steps=9
    )


def test_the_verdict_names_the_fastest_solver_with_its_error() -> None:
    groups = [
        group("sequential"),
        group("picard", speedup=2, latent_rmse=0.001),
        group("ropa", speedup=3, latent_rmse=0.02),
    ]
    verdict = judge(groups)
    assert verdict.headline == "All 6 items are done."
    assert verdict.sentence == (
        "ropa takes 3 model calls in a row instead of 9 (3.00×), at a mean latent RMSE of 0.0200."
    )


def test_the_verdict_says_when_nothing_differs() -> None:
    assert judge([group("ropa", speedup=3, latent_rmse=0.0)]).sentence.endswith("its latents are bit-identical.")


def test_the_verdict_claims_nothing_that_was_not_measured() -> None:
    assert judge([group("sequential")]).sentence == ""
    assert "not scored" in judge([group("ropa")]).sentence


@pytest.mark.parametrize(
    ("done", "failed", "state", "headline"),
    [
        (2, 0, "done", "All 2 items are done."),
        (1, 1, "failed", "1 of 2 items are done, 1 failed."),
        (1, 0, "incomplete", "1 of 2 items are done, 1 not run yet."),
    ],
)
def test_the_headline_counts(done: int, failed: int, state: str, headline: str) -> None:
    verdict = judge([group("sequential", done=done, failed=failed)])
    assert (verdict.state, verdict.headline) == (state, headline)


def test_the_table_has_a_column_for_every_metric_with_a_value_and_none_for_parts(tmp_path: Path) -> None:
    run = scored(tmp_path, ("latent_rmse", "latent_worst_block", "checker"))
    page = collect(run)
    titles = [column.title for column in page.summary.table.columns]
    costs = ["n", "rounds", "NFE", "N / rounds", "seconds"]
    assert titles == [*costs, "latent RMSE", "median", "max", "worst block", "accuracy"]
    assert all(len(row.cells) == len(titles) for row in page.summary.table.rows)
    assert page.summary.table.rows[0].cells[5].text == "reference"


def test_a_number_of_fewer_items_says_so() -> None:
    scores = [Score("a", "psnr", 30.0, True)]
    partly = replace(group("ropa"), metrics={"psnr": Estimate(1, 30.0, 30.0, None, None, 30.0, 30.0)})
    (row,) = build_table([partly], headings(scores)).rows
    assert (row.cells[4].text, row.cells[4].note) == ("30.0 dB", "n = 1")


def test_metrics_of_packages_that_are_gone_keep_their_column() -> None:
    (heading,) = headings([Score("a", "sharpness", 1.0, True)])
    assert (heading.title, heading.style, heading.higher_is_better) == ("sharpness", "number", True)


def test_colours_follow_the_solver_and_gray_is_the_sequential_one() -> None:
    assert colours({"a": "ropa", "s": "sequential", "b": "picard"}) == [1, 0, 2]
    assert max(colours({str(number): "ropa" for number in range(20)})) == 7


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0"),
        (0.01234, "0.0123"),
        (1.0, "1.00"),
        (123.4, "123"),
        (999.4, "999"),
        (999.5, "1,000"),
        (-999.7, "-1,000"),
        (1234.5, "1,234"),
        (1.2e-5, "1.2e-05"),
        (-0.5, "-0.500"),
    ],
)
def test_numbers_have_three_digits(value: float, written: str) -> None:
    assert numbers.number(value) == written


@pytest.mark.parametrize(
    ("value", "style", "written"), [(1.0, "share", "100%"), (0.958, "share", "95.8%"), (38.21, "decibel", "38.2 dB")]
)
def test_styles(value: float, style: str, written: str) -> None:
    assert numbers.styled(value, style) == written


def test_nested_environments_become_lines() -> None:
    nested = {"versions": {"torch": "2.6"}, "gpus": ["a", "b"], "git": None, "cpus": 2}
    assert list(flatten(nested)) == [("versions.torch", "2.6"), ("gpus", "a, b"), ("git", ""), ("cpus", "2")]


def test_the_verb_prints_the_path_of_the_page(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", failed={1: ERROR})
    result = CliRunner().invoke(main, ["report", str(run.path)])
    assert (result.exit_code, result.stdout) == (0, f"{run.path}/report/index.html\n")
    result = CliRunner().invoke(main, ["report", str(run.path), "--json"])
    assert json.loads(result.stdout) == {"report": f"{run.path}/report/index.html", "items": 4, "failed": 1}


def test_a_report_of_a_run_that_has_only_begun(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", solvers=(ROPA,), pending=(0, 1))
    page = page_of(run)
    assert "0 of 2 items are done, 2 not run yet." in page


def test_intervals_are_drawn_on_one_scale_for_each_column(tmp_path: Path) -> None:
    run = scored(tmp_path, solvers=ALL_SOLVERS, prompts=CAPTIONS)
    table = collect(run).summary.table
    index = [column.metric for column in table.columns].index("latent_rmse")
    bars = {row.group.label: row.cells[index].bar for row in table.rows}
    assert bars["sequential"] is None
    picard, ropa, chords = (bars[name] for name in ("picard K=8", "ropa K=8", "chords K=4"))
    assert picard is not None and ropa is not None and chords is not None
    assert 0 < picard.at < ropa.at < chords.at < 100
    assert chords.low < chords.at < chords.high
    assert page_of(run).count('class="interval small') == sum(
        cell.bar is not None for row in table.rows for cell in row.cells
    )
