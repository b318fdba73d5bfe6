"""Scoring a run: every item has a row, nothing is measured twice, and nothing stale is kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest
from click.testing import CliRunner

from genrun.adapters.scorers import registry
from genrun.adapters.scorers.contract import Sample, SetPart, UnscoredError, needs_of
from genrun.runner.cli import main
from genrun.runner.errors import UsageError
from genrun.runner.job.plan import WorkItem
from genrun.runner.score.metrics import IS_REFERENCE, wanted_metrics
from genrun.runner.score.scoring import MADE_AGAIN, known_scores, score_run
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import Score
from genrun.runner.store.scores import read_scores
from tests.sample_run import CAPTIONS, PICARD, ROPA, SEQUENTIAL, finish, make_run


@dataclass
class Described:
    """What a metric says of itself."""

    name: str = "size"
    version: int = 1
    title: str = "size"
    definition: str = "Size of the media file in bytes."
    higher_is_better: bool = False
    style: Literal["number"] = "number"
    reads: Literal["media", "latents"] = "media"
    compares: bool = True


@dataclass
class Counting(Described):
    """A metric that counts its measurements; it gives the item's file size."""

    measured: int = 0
    stop_after: int | None = None
    result: float | Exception | None = None

    def measure(self, sample: Sample, _reference: Sample | None, /) -> Mapping[str, float]:
        if self.measured == self.stop_after:
            raise KeyboardInterrupt
        self.measured += 1
        if isinstance(self.result, Exception):
            raise self.result
        assert sample.media is not None
        return {self.name: self.result if self.result is not None else float(sample.media.stat().st_size)}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "demo" / "run", solvers=(SEQUENTIAL, PICARD, ROPA))


def by_item(scores: list[Score]) -> dict[str, Score]:
    return {score.item_id: score for score in scores}


def test_every_item_has_a_row_for_every_metric(run: RunFolder) -> None:
    metrics = wanted_metrics(run)
    rows = score_run(run, metrics)
    for metric in metrics:
        assert [row.item_id for row in rows if row.metric == metric.name] == [item.id for item in run.items()]


def test_scores_are_those_of_the_errors_that_were_put_in(run: RunFolder) -> None:
    rows = score_run(run, wanted_metrics(run, ["latent_rmse", "psnr", "checker"]))
    values = {(row.metric, row.item_id): row.value for row in rows}
    for item in run.items():
        error = {"sequential": None, "picard": 0.004, "ropa": 0.02}[item.solver["kind"]]
        measured = values["latent_rmse", item.id]
        assert measured == (None if error is None else pytest.approx(error, rel=0.06))
        assert values["checker", item.id] == 1.0


def test_the_sequential_item_is_not_compared_with_itself(run: RunFolder) -> None:
    rows = by_item(score_run(run, wanted_metrics(run, ["psnr"])))
    reasons = {rows[item.id].reason for item in run.items() if item.is_reference}
    assert reasons == {IS_REFERENCE}


def test_scoring_again_measures_nothing(run: RunFolder) -> None:
    metric = Counting()
    first = score_run(run, [metric])
    measured = metric.measured
    assert score_run(run, [metric]) == first
    assert (measured, metric.measured) == (4, 4)


def test_an_item_that_was_made_again_is_scored_again_and_no_other(run: RunFolder) -> None:
    metric = Counting()
    score_run(run, [metric])
    item = next(item for item in run.items() if item.solver["kind"] == "ropa")
    path = make_again(run, item)
    rows = by_item(score_run(run, [metric]))
    assert metric.measured == 5
    assert rows[item.id].value == path.stat().st_size


def test_a_reference_that_was_made_again_is_compared_again_with_all_its_items(run: RunFolder) -> None:
    metric = Counting()
    score_run(run, [metric])
    make_again(run, next(item for item in run.items() if item.is_reference))
    score_run(run, [metric])
    assert metric.measured == 4 + 2


def test_what_is_read_back_is_of_the_files_that_are_there(run: RunFolder) -> None:
    score_run(run, [Counting(name="psnr"), SetSize()])
    assert all(score.value for score in known(run).values() if score.metric == "fid")
    again = next(item for item in run.items() if item.solver["kind"] == "ropa")
    make_again(run, again)
    lost = {key for key, score in known(run).items() if score.reason == MADE_AGAIN}
    assert lost == {(again.id, "psnr"), ("set:ropa K=8", "fid")}
    # The reference of a pair is in the numbers of all its items.
    make_again(run, next(item for item in run.items() if item.is_reference and item.pair != again.pair))
    lost = {key for key, score in known(run).items() if score.reason == MADE_AGAIN}
    assert len([key for key in lost if key[1] == "psnr"]) == 1 + 3
    score_run(run, [Counting(name="psnr"), SetSize()])
    assert not any(score.reason == MADE_AGAIN for score in known(run).values())


def known(run: RunFolder) -> dict[tuple[str, str], Score]:
    return {(each.item_id, each.metric): each for each in known_scores(run, run.items(), run.records()).scores}


@dataclass
class SetSize(Described):
    """A metric of sets: the number of their samples."""

    name: str = "fid"
    compares: bool = False
    parts: tuple[str, ...] = ("fid",)

    def measure_set(self, samples: Sequence[Sample], parts: Sequence[str], _workspace: Path, /) -> Iterator[SetPart]:
        yield from (SetPart(part, float(len(samples))) for part in parts)

    def combine(self, _values: Mapping[str, float], /) -> Mapping[str, float]:
        return {}


def test_a_scoring_that_was_cut_off_after_a_change_leaves_no_number_of_before(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genrun.runner.store.scores.SAVE_EVERY", 1)
    score_run(run, [Counting()])
    with pytest.raises(KeyboardInterrupt):
        score_run(run, [Counting(version=2, stop_after=2)])
    assert {score.version for score in read_scores(run) if score.value is not None} == {2}


def make_again(run: RunFolder, item: WorkItem) -> Path:
    """Another file, and a record that says so."""
    path = run.media_path(item, ".mp4")
    path.write_bytes(path.read_bytes() + b"\0")
    record = run.record(item.id)
    assert record is not None
    run.record_path(item.id).unlink()
    run.write_record(replace(record, sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    return path


def test_changed_latents_do_not_make_metrics_of_media_run_again(run: RunFolder) -> None:
    metric = Counting()
    score_run(run, [metric])
    run.latents_path(run.items()[1].id).unlink()
    score_run(run, [metric])
    assert metric.measured == 4


def test_a_new_version_of_a_metric_scores_everything_again(run: RunFolder) -> None:
    metric = Counting()
    score_run(run, [metric])
    metric.version = 2
    rows = score_run(run, [metric])
    assert metric.measured == 8
    assert {row.version for row in rows} == {2}


def test_scoring_that_was_cut_off_goes_on_where_it_stopped(run: RunFolder) -> None:
    metric = Counting(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        score_run(run, [metric])
    assert sum(score.value is not None for score in read_scores(run)) == 3
    metric.stop_after = None
    score_run(run, [metric])
    assert metric.measured == 4


@pytest.mark.parametrize("raised", [UnscoredError("too dark"), RuntimeError("boom")])
def test_a_metric_that_fails_leaves_a_reason_and_is_tried_again(raised: Exception, run: RunFolder) -> None:
    metric = Counting(compares=False, result=raised)
    rows = score_run(run, [metric])
    assert {row.value for row in rows} == {None}
    assert {row.reason for row in rows} == {"too dark" if isinstance(raised, UnscoredError) else "RuntimeError: boom"}
    metric.result = 1.0
    assert {row.value for row in score_run(run, [metric])} == {1.0}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_not_a_score(bad: float, run: RunFolder) -> None:
    rows = score_run(run, [Counting(compares=False, result=bad)])
    assert {(row.value, row.reason) for row in rows} == {(None, "not a finite number: size")}


def test_items_without_a_result_say_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", failed={0: {"kind": "Error"}, 2: {"kind": "Error"}}, pending=(3,))
    rows = score_run(run, wanted_metrics(run, ["psnr"]))
    assert [row.reason for row in rows] == [
        "generation failed",
        "the sequential item: generation failed",
        "generation failed",
        "not generated yet",
    ]


def test_a_plan_without_the_sequential_solver_cannot_be_compared(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", solvers=(ROPA,))
    reasons = {row.reason for row in score_run(run, wanted_metrics(run, ["latent_rmse"]))}
    assert reasons == {"no sequential item of this prompt and seed in the plan"}


def test_latents_that_were_not_saved_name_the_option(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", latents=False)
    rows = [row for row in score_run(run, wanted_metrics(run, ["latent_rmse"])) if row.reason != IS_REFERENCE]
    assert {row.reason for row in rows} == {"no latents were saved; set output.save_latents: true in the job"}


def test_an_item_that_is_made_later_is_scored_then(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", pending=(1,))
    metrics = wanted_metrics(run, ["latent_rmse"])
    item = run.items()[1]
    assert by_item(score_run(run, metrics))[item.id].value is None
    finish(run, item, ROPA)
    assert by_item(score_run(run, metrics))[item.id].value == pytest.approx(ROPA.error, rel=0.06)


def test_a_line_broken_by_hand_is_measured_again(run: RunFolder) -> None:
    metric = Counting()
    rows = score_run(run, [metric])
    path = run.scores_path("size")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{broken", "[]", *lines[2:]]) + "\n")
    assert score_run(run, [metric]) == rows
    assert metric.measured == 5


def test_stored_rows_are_the_scores_and_the_hashes_of_their_files(run: RunFolder) -> None:
    rows = score_run(run, wanted_metrics(run, ["checker", "psnr"]))
    assert sorted(read_scores(run), key=str) == sorted(rows, key=str)
    stored = [json.loads(line) for line in run.scores_path("psnr").read_text().splitlines()]
    records = run.records()
    for line, item in zip(stored, run.items(), strict=True):
        assert line["inputs"][0] == records[item.id].sha256


def test_the_job_says_which_metrics_are_wanted(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunFolder, "job_document", lambda self: {"score": ["psnr", "ssim"]})
    assert [metric.name for metric in wanted_metrics(run)] == ["psnr", "ssim"]
    assert [metric.name for metric in wanted_metrics(run, ["checker"])] == ["checker"]


def test_without_a_wish_every_metric_that_needs_nothing_is_measured(run: RunFolder) -> None:
    chosen = {metric.name for metric in wanted_metrics(run)}
    assert chosen == {name for name in registry.names() if not needs_of(registry.get(name))}
    assert {"psnr", "checker", "temporal_flicker"} <= chosen


def test_an_unknown_metric_is_a_wrong_command_line(run: RunFolder) -> None:
    with pytest.raises(UsageError, match=r"unknown metric 'psrn'\. Did you mean 'psnr'\?"):
        wanted_metrics(run, ["psrn"])


def test_progress_counts_every_item(run: RunFolder) -> None:
    seen: list[tuple[int, int]] = []
    score_run(run, [Counting()], lambda done, total: seen.append((done, total)))
    assert seen == [(n, 6) for n in range(1, 7)]


def test_the_verb_prints_a_list_of_rows_for_scripts(run: RunFolder) -> None:
    result = CliRunner().invoke(main, ["score", str(run.path), "--metrics", "latent_rmse", "--json"])
    assert result.exit_code == 0, result.output
    rows = [Score(**row) for row in json.loads(result.stdout)]
    assert [row.item_id for row in rows] == [item.id for item in run.items()]
    assert {row.metric for row in rows} == {"latent_rmse"}


def test_the_verb_prints_a_table_by_solver(run: RunFolder) -> None:
    result = CliRunner().invoke(main, ["score", str(run.path), "--metrics", "latent_rmse,checker"])
    assert result.exit_code == 0, result.output
    heading, *lines = result.stdout.splitlines()
    assert heading.split() == [
        "solver",
        "n",
        "rounds",
        "NFE",
        "N",
        "/",
        "rounds",
        "latent",
        "RMSE",
        "median",
        "max",
        "accuracy",
    ]
    assert [line.split()[0] for line in lines] == ["sequential", "picard", "ropa"]
    assert "2.86×" in lines[2]
    assert "100% [34.2%, 100%]" in lines[2]


def test_the_verb_says_what_was_not_scored(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", prompts=(CAPTIONS[0], "a cat"), pending=(1,))
    result = CliRunner().invoke(main, ["score", str(run.path), "--metrics", "checker"])
    assert "checker: 2 items not scored: the checker reads captions" in result.stderr
    assert "checker: 1 item not scored: not generated yet" in result.stderr


def test_rows_are_plain_values(run: RunFolder) -> None:
    row = score_run(run, [Counting()])[1]
    assert replace(row, value=1.0) == Score(run.items()[1].id, "size", 1.0, False)
