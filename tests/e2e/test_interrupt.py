"""Ctrl-C drops the item in work and says how to go on; a kill while prompts are encoded loses none of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import holdings
from genrun.runner.store.verify import verify
from tests.fakes import worker
from tests.tiny.checkpoints import save

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
FAKE = [sys.executable, str(ROOT / "tests" / "fakes" / "cli.py")]
REAL = [sys.executable, "-c", "from genrun.runner.cli import main; main(prog_name='genrun')"]
PATIENCE_S = 120


def start(folder: Path, command: list[str], job: dict[str, Any]) -> subprocess.Popen[str]:
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", worker.NAP: "0.2"}
    full = [*command, "submit", "job.yaml", "--json"]
    pipe = subprocess.PIPE
    return subprocess.Popen(full, cwd=folder, env=environ, stdout=pipe, stderr=pipe, text=True)


def wait_for(true: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not true():
        assert process.poll() is None and time.monotonic() < end, process.communicate()[1]
        time.sleep(0.02)


def latest(folder: Path) -> RunFolder:
    return RunFolder.open(next((folder / "runs").glob("*/latest")))


@pytest.mark.parametrize("launch", [{"kind": "inline"}, {"kind": "torchrun", "processes": 2}])
def test_ctrl_c_drops_the_item_in_work_and_says_how_to_go_on(tmp_path: Path, launch: dict[str, Any]) -> None:
    job = {"name": "stop", "model": "test/fake", "prompts": ["a"], "seeds": list(range(16)), "launch": launch}
    process = start(tmp_path, FAKE, job)
    wait_for(lambda: bool(list(tmp_path.glob("runs/stop/2*/items/*/[!.]*.json"))), process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    folder = latest(tmp_path)
    tally = folder.tally()
    assert process.returncode == 3
    assert 0 < tally.done < tally.items and tally.failed == 0
    assert f"stopped: {tally.done} of {tally.items} items are done" in said
    assert "To go on, run the same command again; finished items are kept." in said
    assert "Traceback" not in said
    assert holdings(folder) == {} and folder.temporary_files() == []
    again = start(tmp_path, FAKE, job)
    assert json.loads(again.communicate(timeout=PATIENCE_S)[0])["done"] == tally.items
    assert verify(folder) == []


def test_a_kill_while_prompts_are_encoded_loses_none_that_is(tmp_path: Path) -> None:
    job = {
        "name": "encode",
        "model": {"checkpoint": str(save("sd3", tmp_path / "weights")), "dtype": "float32"},
        "prompts": [f"a red circle number {number}" for number in range(100)],
        "sampling": {"steps": 1, "height": 32, "width": 32, "guidance_scale": 1.0},
    }
    process = start(tmp_path, REAL, job)

    def encoded() -> dict[Path, int]:
        found = tmp_path.glob("runs/encode/2*/prompts/*/*.safetensors")
        return {path: path.stat().st_mtime_ns for path in found if path.name[0] != "."}

    wait_for(lambda: len(encoded()) >= 10, process)
    (holding,) = holdings(latest(tmp_path)).values()
    assert holding.owner is not None
    os.kill(holding.owner.process.pid, signal.SIGKILL)
    before = encoded()
    counts, said = process.communicate(timeout=PATIENCE_S)
    assert len(before) < 100, "killed too late to tell anything"
    assert "starting the workers again" in said
    assert json.loads(counts.splitlines()[-1])["done"] == 100
    after = encoded()
    assert len(after) == 100
    assert before.items() <= after.items()
    assert latest(tmp_path).temporary_files() == []
