"""Drift: the distance to the baseline's own item, measured once, with a reason where it cannot be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from genrun.adapters.scorers import latent_rmse
from genrun.runner.compare import Comparison, compare_runs
from genrun.runner.compare.compare import Options
from genrun.runner.compare.gates import Gate, Limit
from genrun.runner.store.files import sha256_of
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.records import format_record
from tests.sample_run import ROPA, FakeSolver, make_run

GATES = [Gate("drift.latent_rmse", "max", Limit.read(0.05))]
DRIFTED = FakeSolver(ROPA.label, ROPA.kind, ROPA.rounds, ROPA.nfe, 0.2)


def compare(one: RunFolder, other: RunFolder) -> Comparison:
    return compare_runs(one, other, Options(gates=GATES))


def run(path: Path, solver: FakeSolver) -> RunFolder:
    """Two prompts, final latents hashed as a worker does, no clips."""
    made = make_run(path, solvers=[solver], files=False)
    for record in made.records().values():
        hashed = replace(record, latents_sha256=sha256_of(made.latents_path(record.item_id)))
        made.record_path(record.item_id).write_bytes(format_record(hashed))
    return made


def test_drift_sees_a_change_that_scores_do_not(tmp_path: Path) -> None:
    old, same, new = (run(tmp_path / name, solver) for name, solver in (("a", ROPA), ("b", ROPA), ("c", DRIFTED)))
    assert compare(old, same).state == "passed"
    ((_, gate),) = compare(old, new).gates
    assert gate.state == "failed"
    assert gate.value == pytest.approx(0.18, abs=0.02)
    worst = compare(old, new).cells[0].differences[-1].worst
    assert len(worst) == 2 and worst[0].difference >= worst[1].difference


def test_drift_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = run(tmp_path / "a", ROPA), run(tmp_path / "b", DRIFTED)
    first = compare(old, new)
    monkeypatch.setattr(latent_rmse, "squared_error", lambda *_: pytest.fail("measured again"))
    assert compare(old, new) == first
    kept = new.path / "scores" / "drift" / "latent_rmse.json"
    assert len(json.loads(kept.read_text())) == 2


def test_what_cannot_be_measured_has_a_reason(tmp_path: Path) -> None:
    old, new = run(tmp_path / "a", ROPA), run(tmp_path / "b", DRIFTED)
    old.latents_path(old.items()[0].id).unlink()
    new.record_path(new.items()[1].id).unlink()
    ((_, gate),) = compare(old, new).gates
    assert (gate.state, gate.n) == ("incomplete", 0)
    assert gate.reason.startswith("nothing was measured: the baseline: latents file is missing")


def test_a_file_that_was_put_in_anothers_place_is_no_drift(tmp_path: Path) -> None:
    old, new = run(tmp_path / "a", ROPA), run(tmp_path / "b", DRIFTED)
    one, other = (old.latents_path(item.id) for item in old.items())
    one.write_bytes(other.read_bytes())
    found = next(each for each in compare(old, new).cells[0].differences if each.metric == "drift.latent_rmse")
    assert (found.own.n, found.own.reasons) == (
        1,
        (("the baseline: its file is not the one that was made: genrun verify", 1),),
    )
