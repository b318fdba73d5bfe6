"""`parallel: auto` goes by measured seconds where both ways were measured, and keeps the K that a run was begun with."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from genrun.runner.api.arranging import arrange
from genrun.runner.api.jobs import load_job, plan
from genrun.runner.forecast import CALIBRATION, Observation, keys_of
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.runs import new_path
from tests.fakes.certificates import certify


def job(runs: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "weighed",
        "model": "demo-image",
        "prompts": ["a", "b", "c", "d"],
        "solver": {"kind": "ropa"},
        "parallel": "auto",
        "launch": {"kind": "torchrun", "processes": 4},
        "output": {"dir": str(runs)},
        **changes,
    }


def measured(made: dict[str, Any], time: int, rounds: int, evaluation_s: float) -> None:
    """Keep what an item costs with K = time on that many ranks."""
    item = plan(load_job(made, [f"parallel.time={time}"]))[0]
    line = Observation(*keys_of(item), rounds, rounds * item.solver.get("workers", 1), evaluation_s, time)
    runs = Path(made["output"]["dir"])
    runs.mkdir(exist_ok=True)
    with (runs / CALIBRATION).open("a") as file:
        file.write(json.dumps(asdict(line)) + "\n")


@pytest.mark.parametrize(
    ("changes", "shared_s", "arranged", "told"),
    [
        # Four items: 50 evaluations of .1 s beside each other, or four times 12 rounds.
        ({}, 0.1, (1, 4), "all 4 items take 4.8 s with 1 x 4 (K = 4), 5 s with 4 x 1 (K = 1)"),
        ({}, 0.15, (4, 1), "all 4 items take 5 s with 4 x 1 (K = 1), 7.2 s with 1 x 4 (K = 4)"),
        ({"objective": "latency"}, 0.15, (1, 4), "one item takes 1.8 s with 1 x 4 (K = 4), 5 s with 4 x 1"),
        ({"objective": "latency"}, 0.5, (4, 1), "one item takes 5 s with 4 x 1 (K = 1), 6 s with 1 x 4 (K = 4)"),
    ],
)
def test_seconds_decide_between_items_side_by_side_and_shared_rounds(
    tmp_path: Path, changes: dict[str, Any], shared_s: float, arranged: tuple[int, int], told: str
) -> None:
    made = job(tmp_path / "runs", **changes)
    usual = arrange(made)
    measured(made, 1, 50, 0.1)
    assert arrange(made).loaded.document == usual.loaded.document, "one way alone says nothing"
    measured(made, 4, 12, shared_s)
    found = arrange(made)
    assert found.mesh is not None
    assert (found.mesh.data, found.mesh.time) == arranged
    assert told in found.why
    assert {item.solver["workers"] for item in found.items} == {arranged[1]}
    alike = plan(load_job(made, [f"solver.workers={arranged[1]}"]))
    assert [item.id for item in found.items] == [item.id for item in alike]


def test_a_run_that_was_begun_keeps_its_k(tmp_path: Path) -> None:
    made = job(tmp_path / "runs")
    begun = load_job(made)
    RunFolder.create(new_path(tmp_path / "runs", "weighed"), begun.document, plan(begun))
    measured(made, 1, 50, 0.1)
    measured(made, 4, 12, 0.1)
    assert [item.id for item in arrange(made).items] == [item.id for item in plan(begun)]
    assert [item.solver["workers"] for item in arrange(made, new=True).items] == [4] * 4


@pytest.mark.parametrize("confidence", [None, 0.95])
def test_a_job_that_asks_for_a_confidence_takes_the_k_that_was_calibrated(
    tmp_path: Path, confidence: float | None
) -> None:
    made = job(tmp_path / "runs", solver={"kind": "ropa", **({"confidence": confidence} if confidence else {})})
    certify(tmp_path / "runs", load_job(made, ["parallel.time=4"]))
    measured(made, 1, 50, 0.1)
    measured(made, 4, 12, 0.5)
    found = arrange(made)
    assert {item.solver["workers"] for item in found.items} == {4 if confidence else 1}
    assert (found.why == "its tolerance was calibrated with this K") is bool(confidence)
    assert all(bool(item.promise) is bool(confidence) for item in found.items)


def test_a_k_that_is_written_stays_and_only_the_ranks_are_arranged(tmp_path: Path) -> None:
    made = job(tmp_path / "runs", solver={"kind": "ropa", "workers": 4}, seeds=[0, 1])
    measured(made, 1, 12, 0.1)
    measured(made, 4, 12, 0.02)
    found = arrange(made)
    assert found.mesh is not None
    assert found.mesh.time == 4, "an evaluation took a fifth of the time where four ranks shared the rounds"
    assert [item.id for item in found.items] == [item.id for item in plan(load_job(made))]
