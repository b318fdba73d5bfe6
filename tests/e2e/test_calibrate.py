"""`genrun calibrate` on a real model: runs that are resumed, a certificate, and a job that takes it and audits itself."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from genrun.runner.cli import main
from tests.preloaded import fork_workers

pytestmark = pytest.mark.e2e

JOB = {
    "name": "small",
    "model": "demo-image",
    "prompts": ["a small red circle at the top left on gray", "a large blue square at the center on navy"],
    "sampling": {"steps": 10},
    "solver": {"kind": "collocation", "tolerance": 0.4, "confidence": 0.7, "workers": 2},
    "audit": 1,
    "score": ["ssim"],
    "gates": {"audit": {"min": "50%"}},
}


def _call(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["--traceback", *arguments], prog_name="genrun")


def _records() -> dict[Path, int]:
    """The records of calibrations, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in Path("runs/small-calibration").glob("2*/items/*/[!.]*.json")}


def _kill_a_worker(done: dict[Path, int]) -> None:
    """Kill a worker that has made three items, and keep what was done by then."""
    while len(done) < 3:
        time.sleep(0.02)
        done |= _records()
    for worker in multiprocessing.active_children():
        worker.kill()


def test_a_job_is_calibrated_once_and_later_jobs_take_the_setting(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    fork_workers(monkeypatch)
    Path("job.yaml").write_text(yaml.safe_dump(JOB))

    few = _call("calibrate", "job.yaml", "--samples", "2")
    before = _call("submit", "job.yaml", "-n")
    done: dict[Path, int] = {}
    killer = threading.Thread(target=_kill_a_worker, args=(done,), daemon=True)
    killer.start()
    first = _call("calibrate", "job.yaml", "--samples", "3", "--json")
    killer.join()
    again = _call("calibrate", "job.yaml", "--samples", "3", "--json")
    submitted = _call("submit", "job.yaml")
    scored = _call("score", "small")
    reported = _call("report", "small")
    compared = _call("compare", "runs/small/latest")
    # More of them are audited: those that kept no latents are made again, and no others.
    more = _call("submit", "job.yaml", "--set", "audit=2", "--json")

    # Options that are newer than the first ids are in none of them, and settings are found again all the same.
    ropa = {**JOB, "name": "ropa", "solver": {"kind": "ropa", "tolerance": 0.4, "workers": 2}}
    Path("ropa.yaml").write_text(yaml.safe_dump(ropa))
    assert _call("calibrate", "ropa.yaml", "--samples", "3", "--confidence", "0.7").exit_code == 0
    # What was done when a worker was killed was not made again.
    assert "killed by signal 9" in first.stderr and done.items() <= _records().items()
    assert few.exit_code == 2 and "--samples 3" in few.output
    assert "an aim and not a promise" in before.output
    (found,) = json.loads(first.stdout.splitlines()[-1])
    assert again.stdout == first.stdout and len(list(Path("runs/small-calibration").glob("2*"))) == 2
    assert found["samples"] == 3 and found["failures"] == 0
    assert max(found["errors"], default=0.0) <= 0.4 and found["rounds"] <= 10
    assert "over calibration and item together" in submitted.output or "sampled exactly" in submitted.output
    run = min(Path("runs/small").glob("2*"))
    records = [json.loads(path.read_text()) for path in run.glob("items/*/*.json")]
    assert sorted(record["promise"].get("samples") for record in records if "promise" in record) == [3, 3]
    # Only what is audited keeps its latents.
    assert sum(record["latents"] is not None for record in records) == 2 and len(records) == 3
    assert scored.exit_code == reported.exit_code == 0
    assert "1 of 2 items were also sampled sequentially" in (run / "report" / "index.html").read_text()
    status = json.loads(_call("status", str(run), "--json").stdout)
    seen = [(row.get("promise", {}).get("samples"), row.get("audit", False)) for row in status["rows"]]
    assert sorted(seen, key=str) == [(3, False), (3, True), (None, True)]
    told = json.loads(more.stdout.splitlines()[-1])
    assert (told["items"], told["done"]) == (4, 4)
    newest = max(Path("runs/small").glob("2*"))
    latents = [json.loads(path.read_text())["latents"] for path in newest.glob("items/*/*.json")]
    assert len(latents) == 4 and None not in latents
    # One audited item would pass that gate whatever came of it.
    assert compared.exit_code == 3 and "audit min 50%" in compared.output
    assert "1 audited item cannot tell" in compared.output
