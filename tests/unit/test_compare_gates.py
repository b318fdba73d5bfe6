"""Gates: they fail only beyond their interval, stay open where too little was measured, and say why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest

from genrun.runner.compare import Comparison, GateResult, compare_cells, compare_runs, gates_of
from genrun.runner.compare.compare import Options
from genrun.runner.compare.formats import escape, junit, markdown
from genrun.runner.compare.gates import judge
from genrun.runner.compare.results import Difference, Mean, exit_code
from genrun.runner.job.plan import WorkItem
from genrun.runner.statistics import exact_interval
from tests.fakes.scores import Value, scored_run
from tests.unit.test_compare import as_reference

HOSTILE = "a |cat| <script>alert(1)</script> `x` [y](http://z) @root *b* \x1b[31m\ud800\n# no"


def steady(level: float) -> Value:
    return lambda item, number: level + 0.01 * (number % 4)


LEVEL = steady(1.0)


def judged(tmp_path: Path, gates: dict[str, Any], *, old: Value = LEVEL, new: Value = LEVEL) -> list[GateResult]:
    one = scored_run(tmp_path / "a", {"psnr": old}, solvers=["ropa"])
    other = scored_run(tmp_path / "b", {"psnr": new}, solvers=["ropa"], gates=gates)
    return [gate for _, gate in compare_runs(one, other).gates]


@pytest.mark.parametrize(
    ("rules", "level", "state"),
    [
        ({"max": 0.9}, 1.0, "failed"),
        ({"max": 1.01}, 1.0, "passed"),
        ({"min": 1.1}, 1.0, "failed"),
        ({"min": 1.0}, 1.0, "passed"),
        ({"min": "110%"}, 1.0, "failed"),
        ({"max_drop": 0.2}, 0.9, "passed"),
        ({"max_drop": 0.05}, 0.9, "failed"),
        ({"max_drop": "5%"}, 0.9, "failed"),
        ({"max_drop": "20%"}, 0.9, "passed"),
        ({"max_drop": 0}, 1.1, "passed"),
        ({"max_rise": 0.05}, 1.1, "failed"),
        ({"max_rise": "20%"}, 1.1, "passed"),
        ({"max_drop": 0}, 1.0, "passed"),
    ],
)
def test_a_gate_fails_when_its_interval_is_beyond_the_limit(
    tmp_path: Path, rules: dict[str, Any], level: float, state: str
) -> None:
    (gate,) = judged(tmp_path, {"psnr": rules}, new=steady(level))
    assert (gate.state, gate.n) == (state, 12)


@pytest.mark.parametrize(
    ("rules", "old", "new"),
    [
        # In binary, 29 % of 100 is less than 129 - 100, and 1.1 - 1 more than 0.1.
        ({"max_rise": "29%"}, 100.0, 129.0),
        ({"max_rise": 0.1}, 1.0, 1.1),
        ({"max_drop": 0.2}, 0.3, 0.1),
        ({"max_drop": "7%"}, 100.0, 93.0),
        ({"min": 0.1}, 1.0, 0.1),
        ({"max": "110%"}, 1.0, 1.1),
        ({"max": 0, "min": 0}, 1.0, 0.0),
    ],
)
def test_at_its_limit_a_gate_passes_whatever_binary_fractions_make_of_it(
    tmp_path: Path, rules: dict[str, Any], old: float, new: float
) -> None:
    def alike(level: float) -> Value:
        return lambda item, number: level

    assert {gate.state for gate in judged(tmp_path, {"psnr": rules}, old=alike(old), new=alike(new))} == {"passed"}
    beyond = new * (1 + 1e-6) if {"max", "max_rise"} & rules.keys() else new * (1 - 1e-6)
    found = judged(tmp_path / "beyond", {"psnr": rules}, old=alike(old), new=alike(beyond or 1e-12))
    assert "failed" in {gate.state for gate in found}


def test_a_mean_beyond_the_limit_whose_interval_reaches_it_passes(tmp_path: Path) -> None:
    (gate,) = judged(tmp_path, {"psnr": {"min": 1.0}}, new=lambda item, number: 0.98 + (-1) ** number)
    assert gate.value is not None and gate.high is not None
    assert gate.value < 1.0 < gate.high
    assert gate.state == "passed"


def test_what_was_not_measured_leaves_a_gate_open_unless_it_is_allowed_or_fails_anyway(tmp_path: Path) -> None:
    gates = {"psnr": {"min": 0.5}}

    def holes(item: WorkItem, number: int) -> float | None:
        return None if number == 3 else 1.0

    (gate,) = judged(tmp_path / "x", gates, new=holes)
    assert (gate.state, gate.reason) == ("incomplete", "1 of 12 were not measured: cannot be read")
    assert judged(tmp_path / "y", {"psnr": {"min": 0.5, "max_missing": 1}}, new=holes)[0].state == "passed"
    assert judged(tmp_path / "z", {"psnr": {"min": 0.5, "max_missing": "5%"}}, new=holes)[0].state == "incomplete"
    assert judged(tmp_path / "w", {"psnr": {"min": 1.5}}, new=holes)[0].state == "failed"


def test_nothing_measured_is_incomplete_and_no_regression(tmp_path: Path) -> None:
    (gate,) = judged(tmp_path, {"ssim": {"min": 0.5}})
    assert (gate.state, gate.reason) == ("incomplete", "nothing of that name was scored")
    (gate,) = judged(tmp_path / "x", {"psnr": {"max_drop": 0}}, new=lambda item, number: None)
    assert (gate.state, gate.reason) == ("incomplete", "nothing was measured: cannot be read")


def test_one_pair_has_no_interval_and_judges_nothing(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "a", {"psnr": steady(9.0)}, solvers=["ropa"], prompts=["x"], seeds=[0])
    run.write_plan({**run.job_document(), "gates": {"psnr": {"max": 1}}}, run.items())
    ((_, gate),) = compare_runs(run, run).gates
    assert (gate.state, gate.reason) == ("incomplete", "one item was measured; an interval needs two")


def test_without_a_baseline_limits_are_judged_and_drops_stay_open(tmp_path: Path) -> None:
    gates = {"psnr": {"min": 0.5, "max_drop": 0.1}, "drift.psnr": {"min": 30}}
    found = compare_runs(None, scored_run(tmp_path / "a", {"psnr": steady(1.0)}, gates=gates, solvers=["ropa"]))
    states = {(gate.metric, gate.rule): gate.state for _, gate in found.gates}
    assert states == {
        ("psnr", "min"): "passed",
        ("psnr", "max_drop"): "incomplete",
        ("drift.psnr", "min"): "incomplete",
    }
    assert found.state == "incomplete"


def test_a_gate_on_the_distance_to_the_sequential_items_is_not_held_against_them(tmp_path: Path) -> None:
    gates = {"latent_rmse": {"max": 2, "max_rise": 1}}
    run = scored_run(tmp_path / "a", {"latent_rmse": steady(1.0)}, gates=gates)
    as_reference(run, "latent_rmse")
    assert [(cell.label, gate.rule) for cell, gate in compare_cells(run).gates] == [("ropa", "max")]
    labels = [(cell.label, gate.rule, gate.state) for cell, gate in compare_runs(run, run).gates]
    assert labels == [("ropa", "max", "passed"), ("ropa", "max_rise", "passed")]


def test_a_sequential_item_that_failed_makes_no_gate_on_the_distance_to_it(tmp_path: Path) -> None:
    gates = {"latent_rmse": {"max": 2, "max_rise": 1, "max_missing": 1}}
    run = scored_run(tmp_path / "a", {"latent_rmse": steady(1.0)}, gates=gates)
    as_reference(run, "latent_rmse")
    failed, other = run.items()[:2]
    path = run.scores_path("latent_rmse")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    reasons = {failed.id: "generation failed", other.id: "the sequential item: generation failed"}
    for row in rows:
        if row["item_id"] in reasons:
            row.update(value=None, reason=reasons[row["item_id"]])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = compare_cells(run)
    assert [(cell.label, gate.rule, gate.state) for cell, gate in found.gates] == [("ropa", "max", "passed")]
    assert [each.difference for each in found.cells[0].differences if each.metric == "latent_rmse"] == [None]
    labels = [(cell.label, gate.rule, gate.state) for cell, gate in compare_runs(run, run).gates]
    assert labels == [("ropa", "max", "passed"), ("ropa", "max_rise", "passed")]


def test_costs_have_gates(tmp_path: Path) -> None:
    gates = {"rounds": {"max": 3}, "speedup": {"min": 2.5}}
    found = compare_cells(scored_run(tmp_path / "a", {"psnr": steady(1.0)}, gates=gates))
    assert {gate.metric: gate.state for _, gate in found.gates} == {"rounds": "passed", "speedup": "failed"}


def test_shares_that_disagree_on_few_pairs_raise_no_alarm(tmp_path: Path) -> None:
    gates = {"checker": {"max_drop": 0}}
    old = scored_run(tmp_path / "a", {"checker": lambda item, number: 1.0}, solvers=["ropa"])
    new = scored_run(tmp_path / "b", {"checker": lambda item, number: float(number > 2)}, solvers=["ropa"], gates=gates)
    worse = scored_run(
        tmp_path / "c", {"checker": lambda item, number: float(number > 7)}, solvers=["ropa"], gates=gates
    )
    assert compare_runs(old, new).state == "passed"
    assert compare_runs(old, worse).state == "failed"


def test_states_are_exit_codes_and_a_failure_outweighs_what_is_missing(tmp_path: Path) -> None:
    assert [exit_code(state) for state in ("passed", "failed", "incomplete")] == [0, 1, 3]
    both = {"psnr": {"max": 0.5}, "ssim": {"min": 1}}
    run = scored_run(tmp_path / "a", {"psnr": steady(1.0)}, gates=both, solvers=["ropa"])
    assert compare_runs(run, run).state == "failed"


@pytest.mark.parametrize(("n", "state"), [(0, "incomplete"), (1, "incomplete"), (2, "passed")])
def test_so_few_audited_items_that_none_need_be_within_leave_the_gate_open(n: int, state: str) -> None:
    low, high = exact_interval(n, n) if n else (None, None)
    found = Difference("audit", True, "share", Mean(n, 1.0 if n else None, low, high))
    (gate,) = gates_of({"gates": {"audit": {"min": "95%"}}})
    assert (judge(gate, found).state, judge(gate, found, confidence=0.8).state) == (state, "passed" if n else state)


def test_a_gate_on_an_audit_that_no_item_of_the_run_had_stays_open(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "a", {"psnr": LEVEL}, solvers=["ropa"])
    found = compare_runs(None, run, Options(gates=gates_of({"gates": {"audit": {"min": "95%"}}})))
    assert [(gate.metric, gate.state) for _, gate in found.gates] == [("audit", "incomplete")]


def test_gates_are_read_from_a_stored_job() -> None:
    gates = gates_of(
        {"gates": {"vbench.quality": {"max_drop": "0.5%", "max_missing": None}, "psnr": {"min": 30, "max": 90}}}
    )
    assert [gate.text for gate in gates] == ["vbench.quality max_drop 0.5%", "psnr max 90", "psnr min 30"]
    assert gates[0].limit.of(-80.0) == pytest.approx(0.4)
    assert gates_of({}) == ()


@pytest.fixture
def regressed(tmp_path: Path) -> Comparison:
    gates = {"psnr": {"max_drop": "5%"}, "ssim": {"min": 0.5}}
    options: dict[str, Any] = {"solvers": ["ropa"], "prompts": [HOSTILE, "b"]}
    old = scored_run(tmp_path / "a", {"psnr": steady(1.0)}, **options)
    return compare_runs(old, scored_run(tmp_path / "b", {"psnr": steady(0.5)}, gates=gates, **options))


def test_junit_has_a_case_for_each_gate(regressed: Comparison) -> None:
    root = fromstring(junit(regressed))
    assert {key: root.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "2",
        "failures": "1",
        "errors": "1",
        "skipped": "0",
    }
    failure = root.find("./testsuite[@name='ropa']/testcase[@name='psnr max_drop 5%']/failure")
    assert failure is not None
    assert failure.get("message", "").startswith("ropa: psnr drop of 0.5 dB [0.5, 0.5], allowed 0.1 dB (5%)")


def test_a_cell_without_gates_is_a_skipped_case(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "a", {"psnr": steady(1.0)}, solvers=["ropa"])
    root = fromstring(junit(compare_runs(run, run)))
    assert (root.get("tests"), root.get("skipped")) == ("1", "1")


def test_markdown_keeps_prompts_text(regressed: Comparison) -> None:
    text = markdown(regressed)
    assert text.startswith("## ❌ genrun compare: failed\n")
    assert "<script>" not in text and "\x1b" not in text and "[y](" not in text
    rows = [line for line in text.splitlines() if "script" in line]
    assert rows and all(row.count("|") - row.count("\\|") == 8 for row in rows)


def test_markdown_escapes_what_it_would_obey() -> None:
    assert escape("a|b*_`<i>[x] @me http://www.z.com") == ("a\\|b\\*\\_\\`&lt;i&gt;\\[x\\] \\@me http\\://www\\.z.com")
