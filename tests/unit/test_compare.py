"""Comparing runs and cells: pairs, differences, what is missing, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from genrun.runner.compare import Comparison, Difference, compare_cells, compare_runs
from genrun.runner.compare.compare import Options
from genrun.runner.compare.gates import Gate, Limit
from genrun.runner.errors import UsageError
from genrun.runner.score.metrics import IS_REFERENCE
from genrun.runner.store.folder import RunFolder
from tests.fakes.scores import Value, scored_run


def quality(shift: float = 0.0, spread: float = 0.01) -> Value:
    """A score that depends on prompt and seed, and is `shift` better for ropa."""
    return lambda item, number: (
        len(item.prompt) + 0.1 * item.seed + (shift + spread * (number % 3 - 1) if item.solver["kind"] == "ropa" else 0)
    )


def of(found: Comparison, cell: str, metric: str) -> Difference:
    (match,) = [each for each in found.cells if each.label == cell]
    (difference,) = [each for each in match.differences if each.metric == metric]
    return difference


def test_cells_of_one_run_are_compared_with_the_sequential_one(tmp_path: Path) -> None:
    found = compare_cells(scored_run(tmp_path / "a", {"psnr": quality(-0.5)}))
    assert (found.by, [cell.label for cell in found.cells]) == ("solver", ["ropa"])
    assert (found.cells[0].baseline_label, found.cells[0].pairs) == ("sequential", 12)
    psnr = of(found, "ropa", "psnr")
    assert psnr.difference is not None and psnr.difference.value is not None
    assert psnr.difference.value == pytest.approx(-0.5, abs=0.011)
    assert psnr.candidate == pytest.approx((psnr.baseline or 0) + psnr.difference.value)
    assert (psnr.verdict, psnr.wins, psnr.ties, psnr.losses) == ("worse", 0, 0, 3)
    assert psnr.effect is not None and psnr.effect < -10


def test_the_axis_and_the_baseline_may_be_chosen(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "a", {"psnr": quality(0.5)})
    found = compare_cells(run, "solver", "ropa")
    assert [cell.label for cell in found.cells] == ["sequential"]
    assert of(found, "sequential", "psnr").verdict == "worse"
    with pytest.raises(UsageError, match=r"no axis 'solvr'\. Did you mean 'solver'\?"):
        compare_cells(run, "solvr")
    with pytest.raises(UsageError, match=r"no such label of solver\. Did you mean 'sequential'\?"):
        compare_cells(run, baseline="sequental")
    with pytest.raises(UsageError, match="one run without a matrix"):
        compare_cells(scored_run(tmp_path / "b", {}, axes=False, solvers=["ropa"]))


def test_two_runs_are_compared_cell_by_cell(tmp_path: Path) -> None:
    old = scored_run(tmp_path / "a", {"psnr": quality(0.0)})
    new = scored_run(tmp_path / "b", {"psnr": quality(1.0)}, model="other")
    found = compare_runs(old, new)
    assert [cell.label for cell in found.cells] == ["sequential", "ropa"]
    assert of(found, "sequential", "psnr").verdict == "unclear"
    assert of(found, "sequential", "psnr").ties == 3
    assert of(found, "ropa", "psnr").verdict == "better"


def test_a_baseline_of_one_cell_is_that_of_every_cell(tmp_path: Path) -> None:
    old = scored_run(tmp_path / "a", {"psnr": quality()}, solvers=["sequential"], axes=False)
    found = compare_runs(old, scored_run(tmp_path / "b", {"psnr": quality()}))
    assert [cell.baseline_label for cell in found.cells] == ["sequential", "sequential"]


def test_runs_without_a_common_cell_are_refused(tmp_path: Path) -> None:
    old = scored_run(tmp_path / "a", {}, solvers=["srds", "chords"])
    with pytest.raises(UsageError, match=r"no cell of .*: sequential; ropa against srds; chords"):
        compare_runs(old, scored_run(tmp_path / "b", {}))


def test_only_what_both_sides_have_is_paired(tmp_path: Path) -> None:
    old = scored_run(tmp_path / "a", {"psnr": quality()}, seeds=[0, 1, 2], solvers=["ropa"])
    new = scored_run(tmp_path / "b", {"psnr": quality()}, seeds=[2, 3], solvers=["ropa"])
    (cell,) = compare_runs(old, new).cells
    assert (cell.pairs, cell.only_baseline, cell.only_candidate) == (3, 6, 3)
    (psnr,) = [each for each in cell.differences if each.metric == "psnr"]
    assert (psnr.own.n, psnr.difference and psnr.difference.n) == (6, 3)


def test_what_was_not_measured_is_counted_with_its_reason(tmp_path: Path) -> None:
    old = scored_run(tmp_path / "a", {"psnr": lambda item, number: None if number == 1 else 1.0}, solvers=["ropa"])
    new = scored_run(tmp_path / "b", {"psnr": lambda item, number: None if number in (2, 3) else 1.0}, solvers=["ropa"])
    new.record_path(new.items()[4].id).unlink()
    (cell,) = compare_runs(old, new).cells
    (psnr,) = [each for each in cell.differences if each.metric == "psnr"]
    assert psnr.difference is not None
    assert (psnr.difference.n, psnr.difference.missing) == (8, 4)
    reasons = (("cannot be read", 2), ("the baseline: cannot be read", 1), ("not generated yet", 1))
    assert set(psnr.difference.reasons) == set(reasons)


def test_the_worst_pairs_come_first_and_name_both_clips(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "a", {"psnr": lambda item, number: -number if item.solver["kind"] == "ropa" else 0.0})
    psnr = of(compare_cells(run), "ropa", "psnr")
    assert [pair.difference for pair in psnr.worst] == [-23, -21, -19, -17, -15, -13, -11, -9, -7, -5]
    worst = psnr.worst[0]
    assert (worst.prompt, worst.seed) == ("a bird", 3)
    assert worst.candidate.media == str(
        run.path / "media" / worst.candidate.item_id[:2] / f"{worst.candidate.item_id}.png"
    )
    assert worst.baseline.item_id != worst.candidate.item_id


def test_identical_files_are_counted(tmp_path: Path) -> None:
    old, new = scored_run(tmp_path / "a", {"psnr": quality()}), scored_run(tmp_path / "b", {"psnr": quality()})
    assert [cell.identical for cell in compare_runs(old, new).cells] == [12, 12]
    assert compare_cells(new).cells[0].identical == 0


def test_costs_are_compared_too(tmp_path: Path) -> None:
    found = compare_cells(scored_run(tmp_path / "a", {"psnr": quality()}))
    assert {"rounds", "nfe", "speedup", "elapsed_s"} < {each.metric for each in found.cells[0].differences}
    assert of(found, "ropa", "speedup").candidate == 2.0


def test_the_distance_to_the_sequential_items_is_no_difference_to_them(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "a", {"latent_rmse": quality()})
    as_reference(run, "latent_rmse")
    rmse = of(compare_cells(run), "ropa", "latent_rmse")
    assert (rmse.difference, rmse.own.n) == (None, 12)


def as_reference(run: RunFolder, metric: str) -> None:
    """Leave the sequential items unscored, as scoring does for metrics that compare with them."""
    sequential = {item.id for item in run.items() if item.is_reference}
    path = run.scores_path(metric)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["item_id"] in sequential:
            row.update(value=None, reason=IS_REFERENCE)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_comparison_is_plain_data(tmp_path: Path) -> None:
    found = compare_cells(scored_run(tmp_path / "a", {"psnr": quality()}))
    assert json.loads(json.dumps(dataclasses.asdict(found), allow_nan=False))["cells"][0]["label"] == "ropa"


def test_prompts_that_differ_in_a_negative_prompt_are_no_pair(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "a", {"psnr": quality()}, solvers=["ropa"])
    items = [dataclasses.replace(item, negative_prompt="blurred") for item in run.items()]
    other = scored_run(tmp_path / "b", {"psnr": quality()}, solvers=["ropa"])
    other.write_plan(other.job_document(), items)
    (cell,) = compare_runs(run, other).cells
    assert (cell.pairs, cell.only_baseline) == (0, 12)
    assert compare_runs(run, other, Options(gates=())).state == "passed"


def test_nothing_scored_is_incomplete(tmp_path: Path) -> None:
    assert compare_cells(scored_run(tmp_path / "a", {})).state == "incomplete"


def with_negatives(run: RunFolder, negatives: Mapping[str, str | None]) -> RunFolder:
    """Give the items of each solver another negative prompt, as a matrix of negative prompts would."""
    items = [
        dataclasses.replace(
            item, negative_prompt=negatives[item.solver["kind"]], axes={"sampling.negative_prompt": item.solver["kind"]}
        )
        for item in run.items()
    ]
    run.write_plan(run.job_document(), items)
    return run


def test_cells_that_differ_in_the_negative_prompt_are_compared(tmp_path: Path) -> None:
    run = with_negatives(
        scored_run(tmp_path / "a", {"psnr": quality()}, solvers=["none", "blurred"]), {"none": None, "blurred": "x"}
    )
    (cell,) = compare_cells(run, baseline="none").cells
    assert (cell.baseline_label, cell.pairs) == ("none", 12)


def test_no_negative_prompt_and_an_empty_one_are_two_prompts(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "a", {"psnr": quality()}, solvers=["none", "empty"])
    items = [
        dataclasses.replace(
            item, negative_prompt=None if item.solver["kind"] == "none" else "", axes={"solver": "ropa"}
        )
        for item in run.items()
    ]
    run.write_plan(run.job_document(), items)
    (cell,) = compare_runs(run, run).cells
    assert (cell.pairs, cell.identical) == (24, 24)
    found = next(each for each in cell.differences if each.metric == "psnr")
    assert (found.wins, found.ties, found.losses) == (0, 6, 0)


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ({"settings": {"checkpoint": "b", "frames": 8}}, 'checkpoint "b", not "a"'),
        ({"version": 2}, "version 2 of the metric, not 1"),
    ],
)
def test_numbers_that_were_measured_otherwise_are_not_compared(
    about: dict[str, object], why: str, tmp_path: Path
) -> None:
    one, other = (scored_run(tmp_path / name, {"psnr": quality()}) for name in "ab")
    for run, changes in ((one, {}), (other, about)):
        rows = map(json.loads, run.scores_path("psnr").read_text().splitlines())
        rows = [{**row, "settings": {"checkpoint": "a", "frames": 8}, **changes} for row in rows]
        run.scores_path("psnr").write_text("".join(json.dumps(row) + "\n" for row in rows))
    gates = (Gate("psnr", "max_drop", Limit.read(0.1)), Gate("psnr", "min", Limit.read(0.1)))
    found = compare_runs(one, other, Options(gates=gates))
    assert {gate.rule: gate.state for _, gate in found.gates} == {"max_drop": "incomplete", "min": "passed"}
    assert any(why in gate.reason for _, gate in found.gates)
    assert any(why in note for note in found.notes)
    assert compare_runs(one, one, Options(gates=gates)).state == "passed"
