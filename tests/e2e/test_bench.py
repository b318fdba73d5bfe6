"""`genrun bench` as a process: a real, tiny pipeline folder, closed-form problems, and ranks."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from genrun.solvers import registry
from tests.tiny.checkpoints import save

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]
MAIN = "from genrun.runner.cli import main; main(prog_name='genrun')"
PROMPTS = 'a cat\na "dog" <script>alert(1)</script>\n'
MODEL = ("--model", "checkpoint", "--steps", "6", "--guidance", "4", "--prompts", "prompts.txt", "--samples", "2")
SMALL = ("--set", "model.dtype=float32", "--set", "sampling.height=32", "--set", "sampling.width=32")
SWEEP = ("--solvers", "all", "--workers", "3", "--tolerances", "0,0.3")


def python(folder: Path, code: str, *args: str) -> str:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *args]
    ran = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=500, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def bench(folder: Path, *args: str) -> dict[str, Any]:
    return json.loads(python(folder, MAIN, "bench", *args, "--json").splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    save("sd3", folder).rename(folder / "checkpoint")
    (folder / "prompts.txt").write_text(PROMPTS)
    return folder


@pytest.fixture(scope="module")
def summary(folder: Path) -> dict[str, Any]:
    return bench(folder, *MODEL, *SMALL, *SWEEP, "--out", "out")


def test_every_solver_is_measured_on_a_folder_of_a_pipeline(folder: Path, summary: dict[str, Any]) -> None:
    with (folder / "out" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    solvers = set(registry.names()) - {"sequential"}
    assert {row["solver"] for row in rows} == solvers
    assert summary["cells"] == len(rows) == len(solvers) * 2
    for row in (row for row in rows if not row["error"]):
        assert row["problem"] == "checkpoint"
        assert 1 <= float(row["rounds"]) <= 6
        assert float(row["worst_block"]) >= float(row["rmse_mean"]) >= 0
        assert float(row["round_ratio"]) > 0
    exact = [row for row in rows if row["tolerance"] == "0.0" and not row["error"]]
    assert len(exact) >= len(solvers)
    assert {float(row["rmse_max"]) for row in exact} == {0.0}
    assert max(float(row["rmse_max"]) for row in rows if not row["error"]) > 0


def test_the_page_and_the_json_hold_every_cell(folder: Path, summary: dict[str, Any]) -> None:
    page = Path(summary["page"]).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "seed 1: a &#34;dog&#34; &lt;script&gt;" in page
    assert page.count('data-label="NFE"') == summary["measured"]
    labels = re.findall(r'<svg class="canvas" role="img" aria-label="([^"]+)"', page)
    assert {label.partition(",")[0] for label in labels} == {
        "Latent RMSE against rounds",
        "Number of final states after each round",
    }
    whole = json.loads((folder / "out" / "results.json").read_text())
    assert whole["settings"]["sampling"]["steps"] == 6
    assert whole["pareto"] == summary["pareto"]
    assert {len(cell["by_sample"]) for cell in whole["cells"] if not cell["error"]} == {2}


def test_a_second_run_needs_no_model(folder: Path, summary: dict[str, Any]) -> None:
    code = "import genrun.adapters.sampling.generate as g; g.load = None; " + MAIN
    again = json.loads(python(folder, code, "bench", *MODEL, *SMALL, *SWEEP, "--out", "out", "--json").splitlines()[-1])
    assert again == summary


def test_samples_of_a_batch_take_the_rounds_they_take_alone(folder: Path, summary: dict[str, Any]) -> None:
    few = ("--solvers", "ropa", "--workers", "3", "--tolerances", "0.3")
    together = bench(folder, *MODEL, *SMALL, *few, "--batch", "2", "--out", "together")
    assert together["measured"] == 1

    def samples(out: str) -> list[dict[str, Any]]:
        cells = json.loads((folder / out / "results.json").read_text())["cells"]
        return next(
            cell["by_sample"]
            for cell in cells
            if (cell["solver"], cell["workers"], cell["tolerance"]) == ("ropa", 3, 0.3)
        )

    for one, other in zip(samples("together"), samples("out"), strict=True):
        assert one["fronts"] == other["fronts"]
        assert one["rmse"] == pytest.approx(other["rmse"], abs=1e-3)


def test_closed_forms_need_no_model(folder: Path) -> None:
    few = ("--solvers", "ropa", "--workers", "2,4", "--samples", "2", "--steps", "10", "--tolerances", "0.1")
    found = bench(folder, "--problem", "analytic", *few, "--out", "analytic")
    assert (found["cells"], found["refused"]) == (8, 0)
    assert 'id="bifurcation"' in Path(found["page"]).read_text(encoding="utf-8")


def test_the_engine_is_timed_in_a_process_of_its_own(folder: Path) -> None:
    few = ("--ranks", "1", "--latency-ms", "2", "--steps", "6", "--samples", "1", "--solvers", "paradigms")
    rows = bench(folder, "--engine", *few)["rows"]
    assert [(row["solver"], row["ranks"], row["rounds"]) for row in rows] == [("sequential", 1, 6), ("paradigms", 1, 6)]
    assert all(row["loop_ms"] > row["model_ms"] >= 2 and row["exchange_ms"] > 0 for row in rows)
