"""Jobs of a run in a queue and on this machine: what waits or works, and stopping it, without naming a launcher."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from genrun.runner.errors import LaunchError, UsageError
from genrun.runner.launch.jobs import cancel_all, cancel_tasks, doctor, is_over, queues_of
from genrun.runner.store.environment import name_of
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.order import Order
from genrun.runner.submit.lock import is_at_work
from genrun.slurm.submissions import StoredJob, SubmittedJobs
from tests.fakes.items import make_folder

QUEUED = "slurm-20260131T020000-0a1b2c3d"
FOLLOWED = "torchrun-20260131T030000-0a1b2c3d"


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    bin_folder = tmp_path / "bin"
    program(bin_folder, "squeue", "echo 'x.1|7|0|RUNNING|None|node1|1|'; echo 'x.1|7|1|PENDING|Resources||0|'")
    program(bin_folder, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    program(bin_folder, "scancel", f'echo "$@" >>{tmp_path}/cancelled')
    return {"PATH": f"{bin_folder}:/usr/bin:/bin"}


@pytest.fixture
def queued(tmp_path: Path) -> RunFolder:
    folder = make_folder(tmp_path / "run")
    Order(QUEUED).save(folder)
    SubmittedJobs(QUEUED, "0", {"items": StoredJob("x.1", "7", 2), "score": StoredJob("x.1.score", "8")}).save(folder)
    return folder


@pytest.fixture
def command() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def test_a_run_that_was_never_queued_asks_no_queue(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    Order(FOLLOWED).save(folder)
    assert queues_of(folder, {}) == []
    assert not is_at_work(folder, {})


def test_a_queue_tells_its_tasks_one_by_one_and_in_groups(queued: RunFolder, environ: dict[str, str]) -> None:
    (queue,) = queues_of(queued, environ)
    assert queue.job_ids() == ["7"] and list(queue.live_jobs) == ["7"] and not queue.trouble
    assert [(row["job"], row["step"], row["task"], row["state"]) for row in queue.rows()] == [
        ("7", "items", 0, "RUNNING"),
        ("7", "items", 1, "PENDING"),
        ("8", "score", 0, "UNKNOWN"),
    ]
    groups = [(group.job, group.step, group.tasks, group.state, group.restarted, group.why) for group in queue.groups()]
    assert groups == [
        ("7", "items", 1, "RUNNING", 1, ""),
        ("7", "items", 1, "PENDING", 0, "Resources"),
        ("8", "score", 1, "UNKNOWN", 0, "never began"),
    ]
    assert is_at_work(queued, environ) and not is_over(queued, QUEUED, environ)


def test_everything_or_one_task_is_cancelled_by_number_and_name(
    tmp_path: Path, queued: RunFolder, environ: dict[str, str]
) -> None:
    assert list(cancel_tasks(queued, environ, ["1", "7_0"])) == ["7_1", "7_0"]
    assert list(cancel_all(queued, environ)) == ["7"]
    told = (tmp_path / "cancelled").read_text().splitlines()
    assert told == [f"--user=0 --name=x.1 {job}" for job in ("7_1", "7_0", "7")]


@pytest.mark.parametrize(("task", "why"), [("x", "wanted the number of a task"), ("2", "no such task waits or works")])
def test_a_task_that_is_not_there_is_refused(queued: RunFolder, environ: dict[str, str], task: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        list(cancel_tasks(queued, environ, [task]))


def test_nothing_is_cancelled_while_the_queue_gives_no_answer(
    tmp_path: Path, queued: RunFolder, environ: dict[str, str]
) -> None:
    program(tmp_path / "bin", "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(LaunchError, match="nothing was cancelled: squeue: Unable to contact slurm controller"):
        list(cancel_all(queued, environ))
    assert is_at_work(queued, environ) and not is_over(queued, QUEUED, environ)
    assert not (tmp_path / "cancelled").exists()


def test_a_command_that_follows_workers_here_is_told_to_stop(tmp_path: Path, command: subprocess.Popen[bytes]) -> None:
    folder = make_folder(tmp_path / "run")
    Order(FOLLOWED, launcher=name_of(command.pid)).save(folder)
    assert is_at_work(folder, {}) and not is_over(folder, FOLLOWED, {})
    assert list(cancel_all(folder, dict(os.environ))) == [FOLLOWED]
    command.wait(10)
    assert is_over(folder, FOLLOWED, {}) and not is_at_work(folder, {})


def test_doctor_asks_every_launcher(environ: dict[str, str]) -> None:
    checks = doctor(environ)
    assert [check.name for check in checks] == ["slurm"] and not checks[0].ok
