"""What lies around a run: accounts, doctor, and a job that submits itself again every night."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from genrun.slurm.commands import Commands
from genrun.slurm.doctor import examine
from tests.slurm.cluster import Cluster, missing, running, until
from tests.slurm.conftest import Lab, make_lab

pytestmark = pytest.mark.e2e


@pytest.fixture
def accounted(tmp_path: Path) -> Iterator[Lab]:
    """A cluster that keeps accounts."""
    lacking = missing(accounting=True)
    if lacking:
        pytest.skip(f"no {', '.join(lacking)}: see README.md beside this file")
    with running(accounting=True) as cluster:
        yield make_lab(cluster, tmp_path)


def test_what_slurmctld_has_forgotten_is_told_by_the_accounts(accounted: Lab) -> None:
    accounted.write_job(30, launch={"array": 3})
    job = accounted.submit(nap=1)
    accounted.wait_done(1)
    accounted.cluster.run("scancel", f"{job}_2")
    accounted.wait_over(job)
    accounted.check_whole()

    def states() -> list[str]:
        return accounted.cluster.say("sacct", "-X", "-n", "-P", "-j", job, "-o", "State").split()

    until(lambda: {"COMPLETED", "CANCELLED"} <= set(states()) and "RUNNING" not in states(), "the accounts")
    accounted.cluster.wipe()
    for notes in accounted.run.logs.glob("*/task-*.events"):
        notes.unlink()
    tasks = accounted.status()["tasks"]
    assert [task["state"] for task in tasks] == ["COMPLETED", "COMPLETED", "CANCELLED"]
    assert all(task["nodes"] for task in tasks)
    checks = {check.name: check for check in examine(Commands({**os.environ, **accounted.environ}))}
    assert checks["sacct"].found == "accounting answers"


@pytest.mark.accounts
def test_doctor_knows_a_cluster_that_answers_from_one_that_does_not(cluster: Cluster) -> None:
    commands = Commands({**os.environ, **cluster.environ})
    checks = {check.name: check for check in examine(commands)}
    assert all(check.ok for check in checks.values())
    assert checks["slurmctld"].found == "answers; arrays of up to 1,001 tasks"
    assert checks["sacct"].found.startswith("accounting answers" if cluster.accounting else "no accounting")
    assert "gpu (4 x gpu:h200:8, up to infinite)" in checks["partitions"].found
    cluster.kill("slurmctld")
    down = {check.name: check for check in examine(commands)}
    assert list(down) == ["slurm", "slurmctld"]
    assert not down["slurmctld"].ok
    assert [check.found for check in examine(Commands({"PATH": "/nowhere"}))] == ["not found"]


def test_a_night_that_submits_itself_waits_for_its_hour_and_then_for_the_next(lab: Lab) -> None:
    lab.write_job(2)
    config = {"XDG_CONFIG_HOME": str(lab.path / "config")}
    shown = lab.genrun("nightly", "job.yaml", "--install", "begin", "--at", "03:07", "-n", environ=config)
    assert "#SBATCH --begin=03:07\n" in shown.stdout
    assert not (lab.path / "config").exists()
    script = Path(
        lab.genrun("nightly", "job.yaml", "--install", "begin", "--at", "03:07", environ=config).stdout.strip()
    )
    (line,) = lab.cluster.run("squeue", "-h", "-o", "%A|%T|%r|%S|%j").splitlines()
    job, state, reason, begins, name = line.split("|")
    assert (state, reason) == ("PENDING", "BeginTime")
    assert begins.endswith("T03:07:00")
    assert script.stem == name
    lab.cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now")
    until(lambda: lab.cluster.states(job)[0] not in ("PENDING", "RUNNING", "COMPLETING"), "the night to end", 240)
    # The night's own items may still be leaving the queue.
    (tomorrow,) = lab.cluster.run("squeue", "-h", "-n", name, "-o", "%S|%j").splitlines()
    assert tomorrow == f"{begins}|{name}" or tomorrow.endswith(f"T03:07:00|{name}")
    assert script.with_suffix(".log").is_file()


def test_what_is_printed_for_scripts_is_one_object(lab: Lab) -> None:
    lab.write_job(2)
    said = lab.genrun("submit", "job.yaml", "--json")
    told = {"run", "items", "done", "failed", "pending", "jobs", "reused", "lost", "rewritten"}
    assert set(json.loads(said.stdout)) == told
