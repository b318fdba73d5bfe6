"""A real, tiny diffusers pipeline on a real Slurm: torchrun in every task, two nodes for one item, score and report."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from genrun.runner.store.folder import RunFolder
from genrun.runner.store.verify import verify
from tests.slurm.cluster import missing, running, until
from tests.slurm.conftest import ROOT, Lab, make_lab

pytestmark = pytest.mark.e2e

SAVE = "import sys; from tests.tiny import build; build('sd3').save_pretrained(sys.argv[1])"
MAIN = "from genrun.runner.cli import main; main(prog_name='genrun')"


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Lab]:
    """A cluster, a checkpoint and a job of eight items."""
    if missing():
        pytest.skip(f"no {', '.join(missing())}")
    folder = tmp_path
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", SAVE, "checkpoint"], cwd=folder, env=environ, check=True)
    job = {
        "name": "lab",
        "model": {"checkpoint": "checkpoint", "dtype": "float32"},
        "prompts": ["a cat", 'a "dog"\n<script> 🐦'],
        "seeds": [0, 1],
        "sampling": {"steps": 4, "height": 32, "width": 32, "guidance_scale": 4.0},
        "matrix": {"solver": ["sequential", {"kind": "ropa", "workers": 4}]},
        "output": {"save_latents": True},
        "score": ["latent_rmse"],
        "launch": {"kind": "slurm", "gpus": 2, "time": "00:30:00"},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(job, allow_unicode=True), encoding="utf-8")
    with running() as cluster:
        lab = make_lab(cluster, folder)
        yield Lab(lab.cluster, lab.path, lab.environ, ("-c", MAIN))


def results(folder: RunFolder) -> dict[str, tuple[Any, Any]]:
    return {item_id: (record.sha256, record.latents_sha256) for item_id, record in folder.records().items()}


def submit(lab: Lab, *sets: str) -> RunFolder:
    options = [word for text in sets for word in ("--set", text)]
    counts = lab.genrun("submit", "job.yaml", "--wait", "--json", *options).json
    assert (counts["items"], counts["done"], counts["failed"]) == (8, 8, 0)
    folder = RunFolder.open(Path(counts["run"]))
    assert verify(folder) == []
    return folder


def test_an_array_makes_every_item_and_its_report_and_two_nodes_that_share_one_item_the_same_bytes(real: Lab) -> None:
    by_array = submit(real, "launch.array=2", "launch.then=[score, report]")
    ranks = {
        path.relative_to(by_array.logs).as_posix().split("/", 1)[1] for path in by_array.logs.glob("*/*/rank-*.log")
    }
    assert ranks == {f"task-{task}/rank-{rank}.log" for task in range(2) for rank in range(2)}
    (submission,) = by_array.logs.glob("*/slurm.json")
    jobs = json.loads(submission.read_text())["jobs"]
    real.wait_over(jobs["report"]["id"], 300)
    assert real.cluster.states(jobs["score"]["id"]) == ["COMPLETED"]
    assert real.cluster.states(jobs["report"]["id"]) == ["COMPLETED"]
    assert len(by_array.scores_path("latent_rmse").read_text().splitlines()) > 0
    assert (by_array.report_dir / "index.html").is_file()
    # The nodes of this cluster are one machine, which does not know itself by their names.
    setup = "launch.setup=['export MASTER_ADDR=127.0.0.1']"
    folder = submit(real, "launch.nodes=2", "launch.gpus=1", "parallel.time=2", setup, "output.dir=pairs")
    assert results(folder) == results(by_array)
    (events,) = folder.logs.glob("*/task-0.events")
    assert "|node[1-2]|start|" in events.read_text()


def test_a_calibration_goes_on_after_its_command_is_killed_and_with_other_ranks(real: Lab) -> None:
    job = yaml.safe_load((real.path / "job.yaml").read_text())
    solver = {"kind": "ropa", "workers": 2, "tolerance": 0.5, "confidence": 0.6}
    kept = {key: value for key, value in job.items() if key not in ("matrix", "score", "output", "launch")}
    (real.path / "job.yaml").write_text(yaml.safe_dump({**kept, "solver": solver}))
    calibrate = ("calibrate", "job.yaml", "--samples", "2", "--json", "--runs")
    (plain,) = real.genrun(*calibrate, "plain").json
    queued = [f"launch.{each}" for each in ("kind=slurm", "array=2", "gpus=2", "time=00:10:00")]
    command = real.start(*calibrate, "runs", *(word for text in queued for word in ("--set", text)))
    until(lambda: list((real.path / "runs" / "lab-calibration").glob("2*/items/*/*.json")), "a first item")
    command.kill()
    command.communicate()
    (found,) = real.genrun(*calibrate, "runs", "--set", "launch.kind=torchrun", "--set", "launch.processes=1").json
    assert len(list((real.path / "runs" / "lab-calibration").glob("2*"))) == 2
    apart = {"path", "run"}
    assert {k: v for k, v in found.items() if k not in apart} == {k: v for k, v in plain.items() if k not in apart}
