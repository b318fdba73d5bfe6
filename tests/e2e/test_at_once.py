"""Several submits at one moment: one run for each job, each item made once, and every command ends when all is done."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from genrun.runner.store.folder import RunFolder
from genrun.runner.store.verify import verify
from tests.fakes import faults, worker

pytestmark = pytest.mark.e2e

CLI = Path(__file__).parents[1] / "fakes" / "cli.py"
ROOT = Path(__file__).parents[2]


def write_job(folder: Path, name: str = "job.yaml", **changes: Any) -> None:
    job = {"name": "once", "model": "test/fake", "prompts": ["one", "two", "three"], **changes}
    (folder / name).write_text(yaml.safe_dump(job), encoding="utf-8")


def start(folder: Path, *args: str, nap: float = 0.2, free: int | None = None) -> subprocess.Popen[str]:
    """Start a command; with `free`, its worker samples so many items, and the others when `let_go` is called."""
    hold = "" if free is None else f"{free} {folder / 'go'}"
    environ = {**os.environ, "PYTHONPATH": str(ROOT), worker.NAP: str(nap), worker.HOLD: hold, faults.FOLDER: ""}
    command = [sys.executable, str(CLI), *args]
    return subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def let_go(folder: Path) -> None:
    (folder / "go").touch()


def await_done(folder: Path, count: int, *working: subprocess.Popen[str]) -> None:
    while not runs(folder) or runs(folder)[0].tally().done < count:
        assert all(process.poll() is None for process in working)
        time.sleep(0.02)


def end(process: subprocess.Popen[str], exit_code: int = 0) -> tuple[str, str]:
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == exit_code, stderr
    return stdout, stderr


def runs(folder: Path) -> list[RunFolder]:
    return [RunFolder.open(path.parent) for path in sorted((folder / "runs" / "once").glob("2*/plan.jsonl"))]


def samplings(run: RunFolder) -> int:
    return sum(log.read_text().count(": attempt ") for log in run.logs.glob("*/rank-*.log"))


@pytest.mark.parametrize("kind", ["inline", "torchrun"])
def test_three_submits_of_a_new_job_make_one_run_and_each_item_once(tmp_path: Path, kind: str) -> None:
    write_job(tmp_path, launch={"kind": kind})
    answers = [end(process)[0] for process in [start(tmp_path, "submit", "job.yaml", "--json") for _ in range(3)]]
    (run,) = runs(tmp_path)
    assert [(json.loads(text.splitlines()[-1])["done"], json.loads(text)["run"]) for text in answers] == [
        (3, str(run.path))
    ] * 3
    assert samplings(run) == len(run.result_files()) == 3
    assert verify(run) == []


def test_a_second_submit_follows_the_first_and_takes_over_when_that_is_killed(tmp_path: Path) -> None:
    write_job(tmp_path)
    first = start(tmp_path, "submit", "job.yaml", free=1)
    await_done(tmp_path, 1, first)
    second = start(tmp_path, "submit", "job.yaml")
    assert second.stderr is not None
    assert f"at work already: process {first.pid} on " in second.stderr.readline()
    first.kill()
    assert "items on 1 ranks (inline)." in end(second)[1]
    first.communicate()
    (run,) = runs(tmp_path)
    assert 3 <= samplings(run) <= 4 and len(list(run.logs.glob("*/order.json"))) == 2
    assert verify(run) == []


def test_workers_that_join_share_the_run_and_end_with_it(tmp_path: Path) -> None:
    write_job(tmp_path, prompts=["one", "two"])
    first = start(tmp_path, "submit", "job.yaml", free=0)
    while not runs(tmp_path) or not list(runs(tmp_path)[0].leases.glob("[!.]*")):
        assert first.poll() is None
    second = start(tmp_path, "submit", "--join", "once")
    await_done(tmp_path, 1, first, second)
    let_go(tmp_path)
    assert "items on 1 ranks (inline)." in end(second)[1]
    end(first)
    (run,) = runs(tmp_path)
    assert samplings(run) == 2 and len({record.job for record in run.records().values()}) == 2
    assert verify(run) == []


def test_different_jobs_of_one_name_and_a_night_beside_a_submit_keep_apart(tmp_path: Path) -> None:
    write_job(tmp_path)
    write_job(tmp_path, "other.yaml", prompts=["one", "two", "four"])
    commands = [("submit", "job.yaml"), ("submit", "other.yaml"), ("submit", "other.yaml")]
    submits = [start(tmp_path, *command) for command in commands]
    end(start(tmp_path, "nightly", "job.yaml"), exit_code=3)  # there is no baseline yet
    for process in submits:
        end(process)
    found = runs(tmp_path)
    prompts = sorted(sorted(item.prompt for item in run.items())[0] for run in found)
    nights = [run for run in found if run.night_path.is_file()]
    assert len(nights) == 1 and samplings(nights[0]) <= 3
    # The submit of the same job goes on with the night's run where that is there already.
    assert prompts in (["four", "one"], ["four", "one", "one"])
    assert all(record.reused_from is None for record in nights[0].records().values())
    for run in found:
        assert len(run.record_files()) == 3 and verify(run) == []


def test_a_retry_beside_a_submit_makes_each_item_once(tmp_path: Path) -> None:
    write_job(tmp_path)
    end(start(tmp_path, "submit", "job.yaml", nap=0))
    (run,) = runs(tmp_path)
    for item in run.items():
        run.media_path(item, ".png").unlink()
    processes = [start(tmp_path, "retry"), start(tmp_path, "submit", "job.yaml"), start(tmp_path, "retry")]
    for process in processes:
        end(process)
    assert samplings(run) == 6
    assert verify(run) == []
