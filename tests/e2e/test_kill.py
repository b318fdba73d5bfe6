"""kill -9 at ten moments: the same command again completes the run, each item exactly once, and `verify` is clean."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from genrun.runner.job import load
from genrun.runner.job.plan import plan
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.verify import verify
from tests.fakes import faults, worker

pytestmark = pytest.mark.e2e

CLI = Path(__file__).parents[1] / "fakes" / "cli.py"
ROOT = Path(__file__).parents[2]
INCOMPLETE, KILLED = 3, -signal.SIGKILL


@dataclass(frozen=True)
class CurrentEvaluation:
    """When who is killed, how often, and how the command ends that meets it."""

    moment: str
    victim: str = "self"
    times: int = 2
    launcher: str = "inline"
    exit_code: int = INCOMPLETE
    elastic: bool = False

    def __str__(self) -> str:
        return f"{'elastic-' if self.elastic else ''}{self.launcher}-{self.victim}-{self.moment}"


MOMENTS = [
    CurrentEvaluation("starting"),
    CurrentEvaluation("sampling"),
    CurrentEvaluation("latents"),
    CurrentEvaluation("half-written"),
    CurrentEvaluation("moved"),
    CurrentEvaluation("recorded"),
    CurrentEvaluation("half-written", "launcher", 1, exit_code=KILLED),
    # Workers that died are started again once, so that one death does not end the command.
    CurrentEvaluation("half-written", "self", 1, "torchrun", 0),
    CurrentEvaluation("sampling", "agent", 1, "torchrun", 0),
    CurrentEvaluation("moved", "launcher", 1, "torchrun", KILLED),
    CurrentEvaluation("sampling", "self", 1, "torchrun", 0, elastic=True),
]


def ranks_of(kill: CurrentEvaluation) -> int | str:
    """Of six items, four elastic ranks make four apart, and the last two in pairs."""
    if kill.launcher == "inline":
        return "auto"
    return 4 if kill.elastic else 2


def submit(folder: Path, faulty: bool) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), worker.NAP: "0.02"}
    environ[faults.FOLDER] = str(folder / "faults") if faulty else ""
    command = [sys.executable, str(CLI), "submit", "job.yaml", "--json"]
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("kill", MOMENTS, ids=str)
def test_the_same_command_again_completes_a_killed_run(tmp_path: Path, kill: CurrentEvaluation) -> None:
    job = {
        "name": "kill",
        "model": "test/fake",
        "prompts": ["one", "two", "three"],
        "seeds": [0, 1],
        "output": {"save_latents": True},
        "solver": {"kind": "paradigms", "workers": 8},
        "parallel": {"elastic": kill.elastic},
        "launch": {"kind": kill.launcher, "processes": ranks_of(kill)},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    last = plan(load(tmp_path / "job.yaml"))[-1].id if kill.elastic else ""
    faults.put(tmp_path / "faults", kill.moment, victim=kill.victim, times=kill.times, item=last)

    killed = submit(tmp_path, faulty=True)
    assert killed.returncode == kill.exit_code, killed.stderr
    assert len(list((tmp_path / "faults").glob("*.used"))) == kill.times
    folder = RunFolder.open(tmp_path / "runs" / "kill" / "latest")
    finished = {item_id: record.finished_at for item_id, record in folder.records().items()}
    stamps = {item_id: folder.record_path(item_id).stat().st_mtime_ns for item_id in finished}

    again = submit(tmp_path, faulty=False)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["run"] == str(folder.path)
    assert verify(folder) == []
    items = folder.items()
    assert len(folder.record_files()) == len(items) == 6
    assert len(folder.result_files()) == 2 * len(items)
    for item in items:
        assert folder.media_path(item, ".png").read_bytes() == worker.picture(item)
    assert {item_id: folder.record_path(item_id).stat().st_mtime_ns for item_id in finished} == stamps
    beside = {path.name for path in (tmp_path / "runs" / "kill").iterdir()}
    assert beside == {".submit.lock", "latest", folder.path.name}


def test_setup_lines_run_in_the_shell_of_torchruns_ranks(tmp_path: Path) -> None:
    setup = [f"export {worker.NAP}=0.01", "A='1 2'; touch \"set-up $A\""]
    launch = {"kind": "torchrun", "processes": 2, "setup": setup}
    job = {"name": "kill", "model": "test/fake", "prompts": ["one", "two"], "launch": launch}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    assert submit(tmp_path, faulty=False).returncode == 0
    assert (tmp_path / "set-up 1 2").exists()
    (tmp_path / "job.yaml").write_text(
        yaml.safe_dump({**job, "seeds": [1], "launch": {**job["launch"], "setup": ["false"]}})
    )
    failed = submit(tmp_path, faulty=False)
    assert failed.returncode == 1
    assert "the launcher: ended with exit code 1" in failed.stderr
