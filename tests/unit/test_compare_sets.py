"""Metrics of whole sets in comparisons, gates and the report: one number for each cell, and no interval."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from genrun.adapters.scorers.fid import Fid, FidOptions
from genrun.adapters.scorers.fvd import Fvd
from genrun.runner.compare import Comparison, Difference, GateResult, compare_cells, compare_runs
from genrun.runner.compare import formats as formatting
from genrun.runner.report.build import build_report
from genrun.runner.report.sections.comparison import collect_comparison
from genrun.runner.score.scoring import score_run
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import format_record
from genrun.runner.store.runs import pin
from tests.fakes.scores import give, give_set, scored_run
from tests.sample_run import CAPTIONS, ROPA, SEQUENTIAL, make_run

REASON = "the network is missing: inception.pt"


def run_with(path: Path, ropa: float | str, *, gates: dict[str, object] | None = None) -> RunFolder:
    run = scored_run(path, {}, gates=gates or {})
    give_set(run, "fid", {"sequential": 10.0, "ropa": ropa})
    return run


def of(found: Comparison, cell: str, metric: str = "fid") -> Difference:
    (match,) = [each for each in found.cells if each.label == cell]
    (difference,) = [each for each in match.differences if each.metric == metric]
    return difference


def gate_of(found: Comparison, cell: str) -> GateResult:
    (gate,) = [gate for match, gate in found.gates if match.label == cell]
    return gate


def test_a_number_of_the_set_is_compared_without_an_interval(tmp_path: Path) -> None:
    fid = of(compare_runs(run_with(tmp_path / "a", 12.0), run_with(tmp_path / "b", 15.0)), "ropa")
    assert (fid.baseline, fid.candidate, fid.higher_is_better) == (12.0, 15.0, False)
    assert fid.difference is not None
    assert (fid.difference.value, fid.difference.low, fid.difference.high, fid.difference.n) == (3.0, None, None, 12)
    assert (fid.verdict, fid.effect, fid.worst) == ("unmeasured", None, ())


def test_cells_of_one_run_are_compared_by_their_sets(tmp_path: Path) -> None:
    fid = of(compare_cells(run_with(tmp_path / "a", 12.5)), "ropa")
    assert (fid.baseline, fid.candidate) == (10.0, 12.5)


def test_the_table_has_no_prompts_for_it(tmp_path: Path) -> None:
    found = compare_cells(run_with(tmp_path / "a", 12.5))
    row = dict(zip(formatting.DIFFERENCES, formatting.difference_row(found.cells[0], of(found, "ropa")), strict=True))
    assert (row["difference"], row["prompts +/=/-"], row[""]) == ("+2.50", "", "")


@pytest.mark.parametrize(
    ("rules", "state"),
    [
        ({"max": 14.0}, "failed"),
        ({"max": 15.0}, "passed"),
        ({"max_rise": 2.0}, "failed"),
        ({"max_rise": "30%"}, "passed"),
    ],
)
def test_a_gate_on_it_looks_at_the_number_itself(rules: dict[str, object], state: str, tmp_path: Path) -> None:
    old = run_with(tmp_path / "a", 12.0)
    gate = gate_of(compare_runs(old, run_with(tmp_path / "b", 15.0, gates={"fid": rules})), "ropa")
    assert gate.state == state
    assert ("no interval" in gate.reason) == (state == "failed")


def test_what_was_not_measured_leaves_the_gate_open_with_its_reason(tmp_path: Path) -> None:
    new = run_with(tmp_path / "b", REASON, gates={"fid": {"max": 20, "max_rise": 1}})
    found = compare_runs(run_with(tmp_path / "a", 12.0), new)
    assert found.state == "incomplete"
    gates = [gate for cell, gate in found.gates if cell.label == "ropa"]
    assert [gate.state for gate in gates] == ["incomplete", "incomplete"]
    assert all(REASON in gate.reason for gate in gates)
    turned = compare_runs(new, run_with(tmp_path / "c", 12.0, gates={"fid": {"max_rise": 1}}))
    assert f"the baseline: {REASON}" in gate_of(turned, "ropa").reason


def test_items_that_are_not_in_the_set_count_as_missing(tmp_path: Path) -> None:
    run = run_with(tmp_path / "a", 12.0, gates={"fid": {"max": 20}})
    item = next(item for item in run.items() if item.solver["kind"] == "ropa")
    record = run.record(item.id)
    assert record is not None
    run.record_path(item.id).write_bytes(format_record(replace(record, status="failed")))
    gate = gate_of(compare_cells(run), "ropa")
    assert (gate.state, gate.reason) == ("incomplete", "1 of 12 were not measured: generation failed")


def test_a_dimension_with_numbers_of_items_keeps_its_interval(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "a", {})
    give(run, "vbench.temporal_flickering", lambda item, number: 0.9 + 0.001 * number)
    give_set(run, "vbench.quality", {"sequential": 0.8, "ropa": 0.7}, higher=True)
    found = compare_cells(run)
    assert of(found, "ropa", "vbench.temporal_flickering").own.low is not None
    assert of(found, "ropa", "vbench.quality").own.is_of_set


class Pooled(torch.nn.Module):
    """Mean and spread of each channel, of pictures or clips."""

    def forward(self, x: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        flat = x.float().flatten(2) / 255
        return torch.cat([flat.mean(2), flat.std(2)], dim=1)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*is deprecated:DeprecationWarning")
def test_fid_and_fvd_go_from_scoring_to_the_gates_of_the_page(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Pooled()).save(str(tmp_path / "pooled.pt"))
    options: dict[str, Any] = {"prompts": CAPTIONS, "latents": False}
    old = make_run(tmp_path / "demo" / "old", **options)
    noisy = replace(ROPA, error=0.3)
    new = make_run(tmp_path / "demo" / "new", solvers=(SEQUENTIAL, noisy), gates={"fid": {"max_rise": 0.0}}, **options)
    chosen = FidOptions(tmp_path / "pooled.pt", old.path / "media", device="cpu")
    for run in (old, new):
        score_run(run, [Fid(chosen), Fvd(replace(chosen, frames=8))])
    pin(old)
    found = collect_comparison(new, {})
    assert found is not None
    gates = [(gate.cell, gate.state) for gate in found.gates.rows]
    assert gates == [(ROPA.label, "failed"), (SEQUENTIAL.label, "passed")]
    (cell,) = [cell for cell in found.cells if cell.label == ROPA.label]
    assert [row.title for row in cell.rows][:2] == ["FID", "FVD"]
    assert cell.rows[0].bar is None and cell.rows[0].prompts == 0
    page = build_report(new).path.read_text()
    assert "one number of all items" in page and "Fréchet inception distance" in page
