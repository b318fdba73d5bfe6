"""What a cluster does to a run while it goes: nothing is lost, nothing is made twice, and `status` tells the truth.

Each test ends with the run whole: by itself where Slurm starts tasks again, else by the same command again. With
GENRUN_SLURM_TIMES=FILE the times from fault to recovery are added to a file; README.md has a table of them.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from genrun.runner.store.lease import holdings
from genrun.runner.store.verify import verify
from genrun.slurm.tasks import Event, events
from tests.fakes import faults, worker
from tests.slurm.cluster import until
from tests.slurm.conftest import Lab, wrap

pytestmark = pytest.mark.e2e

ALONE = {"gpus": 2, "options": {"exclusive": True}}
"""One task a node."""


def notes(lab: Lab, task: int = 0) -> list[Event]:
    (logs,) = lab.run.logs.glob("slurm-*")
    return events(logs).get(task, [])


def said(lab: Lab, task: int = 0) -> list[str]:
    return [f"{event.what} {event.detail}".strip() for event in notes(lab, task)]


def begin(lab: Lab, count: int = 20, nap: float = 1.0, **launch: object) -> str:
    """Submit, and wait until the first items are done."""
    lab.write_job(count, launch={"array": 2, **ALONE, **launch})
    job = lab.submit(nap=nap)
    lab.wait_done(2)
    return job


@contextmanager
def recovering(lab: Lab, fault: str, task: int = 0) -> Iterator[None]:
    """Note how long it takes from the fault until a later start of the task is at work on items."""
    began, starts = time.time(), said(lab, task).count("start")
    yield
    until(lambda: said(lab, task).count("start") > starts, "the task to start again")
    job = f".{task}.{max(event.restart for event in notes(lab, task))}"

    def is_at_work() -> bool:
        owners = [holding.owner.job for holding in holdings(lab.run).values() if holding.owner]
        makers = [record.job for record in lab.run.records().values()]
        return any(name.endswith(job) for name in owners + makers) or lab.run.tally().pending == 0

    until(is_at_work, "the task to be at work again")
    note_time(fault, time.time() - began)


def note_time(fault: str, elapsed_s: float) -> None:
    file = os.environ.get("GENRUN_SLURM_TIMES")
    if file:
        with Path(file).open("a") as times:
            times.write(json.dumps({"fault": fault, "s": round(elapsed_s, 1)}) + "\n")


def again(lab: Lab) -> None:
    """Give the same command again, and wait until items are in work or finished."""
    done = lab.run.tally().done
    lab.genrun("submit", "job.yaml")
    until(lambda: holdings(lab.run) or lab.run.tally().done > done, "items in work")


def end(lab: Lab, job: str) -> None:
    """Wait until the job is over; the run must be whole without another command."""
    lab.wait_over(job)
    assert lab.status()["done"] == len(lab.run.items())
    lab.check_whole()


def test_tasks_that_are_requeued_take_up_where_they_were(lab: Lab) -> None:
    job = begin(lab)
    with recovering(lab, "scontrol requeue of a running task"):
        lab.cluster.run("scontrol", "requeue", f"{job}_0")
        until(lambda: lab.cluster.states(job)[0] == "PENDING", "the task to wait")
        task = lab.status()["tasks"][0]
        assert (task["state"], task["reason"]) == ("PENDING", "BeginTime")
    assert lab.status()["tasks"][0]["restarts"] == 1
    end(lab, job)
    assert said(lab) == ["start", "stopped COMPLETING", "start", "end 0"]
    assert lab.status()["tasks"][0]["state"] == "COMPLETED"


def test_the_last_task_of_an_array_requeues_itself_and_no_other(lab: Lab) -> None:
    job = begin(lab)
    lab.fault("recorded")
    until(lambda: "failed 137" in said(lab, 0) + said(lab, 1), "a rank to be killed")
    end(lab, job)
    restarts = sorted(max(event.restart for event in notes(lab, task)) for task in range(2))
    assert restarts == [0, 1]


def urgent(lab: Lab) -> None:
    """A job that takes every node for a moment."""
    lab.cluster.run(
        "sbatch", "--partition=urgent", "--nodes=4", "--exclusive", "--output=/dev/null", "--wrap", "sleep 2"
    )


def test_preemption_without_warning_costs_the_items_in_work_and_no_more(lab: Lab) -> None:
    job = begin(lab, partition="low")
    with recovering(lab, "preemption, GraceTime=0"):
        urgent(lab)
        until(lambda: "PENDING" in lab.cluster.states(job), "the tasks to be preempted")
        assert "PENDING" in {task["state"] for task in lab.status()["tasks"]}
    end(lab, job)
    assert said(lab)[:3] == ["start", "stopped COMPLETING", "start"]


def test_preemption_with_a_warning_puts_the_items_back_at_once(lab: Lab) -> None:
    job = begin(lab, partition="warned")
    with recovering(lab, "preemption with a warning (GraceTime=60)"):
        urgent(lab)
        until(lambda: "requeue warned by Slurm" in said(lab), "the task to requeue itself")
    end(lab, job)
    assert said(lab)[:3] == ["start", "requeue warned by Slurm", "start"]


def test_a_task_whose_time_is_up_goes_on_in_another(lab: Lab) -> None:
    job = begin(lab, count=60, time="00:01:00", options={"signal": "B:USR1@50", "exclusive": True}, array=1)
    until(lambda: "requeue USR1" in said(lab), "the warning")
    with recovering(lab, "time limit"):
        pass
    end(lab, job)
    assert said(lab)[:3] == ["start", "requeue USR1", "start"]


def test_a_task_that_finishes_no_item_within_its_time_gives_up_and_says_why(lab: Lab) -> None:
    lab.write_job(4, launch={"array": 1, "gpus": 1, "time": "00:01:00", "options": {"signal": "B:USR1@50"}})
    job = lab.submit(nap=300)
    lab.wait_over(job)
    assert said(lab) == ["start", "gave-up no item was finished within the time limit. Raise launch.time."]
    status = lab.genrun("status")
    assert "no item was finished within the time limit. Raise launch.time." in status.stdout
    assert "task-0.log" in status.stderr
    lab.finish()


def test_a_killed_rank_takes_its_task_along_and_the_task_starts_again(lab: Lab) -> None:
    job = begin(lab)
    (rank,) = lab.cluster.pids(f"{job}_0", rank=1)
    with recovering(lab, "kill -9 of a rank"):
        os.kill(rank, signal.SIGKILL)
    end(lab, job)
    assert [word.split()[0] for word in said(lab)][:3] == ["start", "failed", "requeue"]


def test_a_task_that_gets_no_answer_from_slurm_decides_for_itself(lab: Lab) -> None:
    unheard = wrap(lab, "squeue", '[ -n "${SLURM_JOB_ID:-}" ] || exec REAL "$@"; exit 1')
    job = begin(unheard)
    (rank,) = lab.cluster.pids(f"{job}_0", rank=1)
    os.kill(rank, signal.SIGKILL)
    end(lab, job)
    assert [word.split()[0] for word in said(lab)] == ["start", "failed", "requeue", "start", "end"]


def test_a_killed_batch_shell_loses_its_task_and_the_same_command_finishes_the_run(lab: Lab) -> None:
    job = begin(lab, array=1)
    shell, *_ = lab.cluster.pids(f"{job}_0", program="slurm_script")
    began = time.time()
    os.kill(shell, signal.SIGKILL)
    lab.wait_over(job)
    task = lab.status()["tasks"][0]
    assert task["state"] in ("FAILED", "CANCELLED")
    assert "running" not in {row["status"] for row in lab.status()["rows"]}
    again(lab)
    note_time("kill -9 of the batch shell, then the same command", time.time() - began)
    lab.finish()


def test_a_lost_node_is_replaced_while_the_cut_off_task_goes_on(lab: Lab) -> None:
    begin(lab, count=100, nap=2.0)
    node = notes(lab)[0].nodes
    with recovering(lab, "node lost (kill -9 of slurmd), its task running on beside the new one"):
        lab.cluster.kill(node)
    assert notes(lab)[-1].nodes != node
    restarts = {record.job.rpartition(".")[2] for record in lab.run.records().values()}
    until(lambda: lab.run.tally().pending == 0, "all items")
    makers = {record.job.rpartition(".")[2] for record in lab.run.records().values()} | restarts
    assert makers >= {"0", "1"}
    assert verify(lab.run) == []
    lab.cluster.start(node)
    lab.cluster.wait_idle()
    lab.check_whole()


@pytest.mark.accounts
def test_a_stopped_slurmctld_stops_no_task(lab: Lab) -> None:
    job = begin(lab, count=24)
    lab.cluster.kill("slurmctld", signal.SIGTERM)
    done = lab.run.tally().done
    lab.wait_done(done + 4)
    began = time.time()
    lab.cluster.start("slurmctld")
    assert lab.status()["slurm"] == ""
    note_time("slurmctld stopped and started: until status has Slurm's word again", time.time() - began)
    end(lab, job)


def test_a_cancelled_task_is_finished_by_the_same_command(lab: Lab) -> None:
    job = begin(lab, array=1)
    began = time.time()
    lab.cluster.run("scancel", f"{job}_0")
    lab.wait_over(job)
    assert lab.status()["tasks"][0]["state"] == "CANCELLED"
    assert said(lab) == ["start", "stopped COMPLETING"]
    again(lab)
    note_time("scancel of a task, then the same command", time.time() - began)
    lab.finish()


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    if subprocess.run(["mount", "--bind", folder, folder], check=False).returncode:
        pytest.skip("only root may mount")
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_read_only_log_folder_fails_the_tasks_and_status_says_what_it_is(lab: Lab) -> None:
    lab.write_job(launch={"options": {"hold": True}})
    job = lab.submit()
    with read_only(lab.run.logs):
        lab.cluster.run("scontrol", "release", job)
        lab.wait_over(job)
        assert "Slurm could not start it, or could not write its log" in lab.genrun("status").stdout
        refusal = lab.genrun("submit", "job.yaml", exit_code=1).stderr
        assert "cannot be written: Read-only file system." in refusal
    lab.write_job()
    lab.finish()


def test_a_full_disk_ends_the_tasks_with_its_reason(lab: Lab) -> None:
    disk = lab.path / "runs"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=500k", "tmpfs", disk], check=False).returncode:
        pytest.skip("only root may mount")
    try:
        lab.write_job(20)
        job = lab.submit()
        lab.wait_over(job)
        assert 0 < lab.run.tally().done < 20
        assert lab.run.temporary_files() == []
        assert {flaw.kind for flaw in verify(lab.run)} <= {"missing", "orphan"}
        assert {task["state"] for task in lab.status()["tasks"]} == {"FAILED"}
        assert "No space left on device" in lab.genrun("submit", "job.yaml", exit_code=1).stderr
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        lab.finish()
    finally:
        # Processes of the last task may not have left it yet.
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("moment", ["starting", "sampling"])
def test_a_node_at_which_all_fails_is_left_after_two_failures(lab: Lab, moment: str) -> None:
    lab.write_job(8, launch={"array": 1, "gpus": 1})
    environ = {faults.BAD_NODE: f"node1 {moment}", worker.NAP: "0.2"}
    began = time.time()
    job = str(lab.genrun("submit", "job.yaml", "--json", environ=environ).json["jobs"][0])
    lab.wait_over(job)
    note_time(f"bad node ({moment}): two failures there, then another node; whole job", time.time() - began)
    lab.check_whole()
    assert [event.nodes for event in notes(lab) if event.what == "failed"] == ["node1", "node1"]
    assert notes(lab)[-1].nodes != "node1"
    assert "node1" in lab.cluster.run("scontrol", "show", "job", f"{job}_0")
    attempts = [record.attempt for record in lab.run.records().values()]
    assert max(attempts) <= 2


def test_workers_that_fail_everywhere_give_up_in_the_end(lab: Lab) -> None:
    lab.write_job(4, launch={"array": 1, "gpus": 1})
    lab.fault("starting", victim="error", times=10)
    job = lab.submit()
    lab.wait_over(job, 180)
    assert said(lab)[-1] == "gave-up the workers failed 4 times."
    stderr = lab.genrun("status").stderr
    assert "the workers failed 4 times." in stderr
    for fault in (lab.path / "faults").glob("*.json"):
        fault.unlink()
    lab.finish()


@pytest.mark.accounts
def test_a_storm_of_faults_on_eight_tasks_of_two_ranks(lab: Lab) -> None:
    lab.write_job(120, launch={"array": 8, "gpus": 2, "partition": "low"})
    for moment in ("sampling", "half-written", "moved", "recorded"):
        lab.fault(moment)
    job = lab.submit(nap=2.0)
    lab.wait_done(8)
    # It may be back in the queue already, with a killed rank.
    lab.cluster.say("scontrol", "requeue", f"{job}_3")
    lab.cluster.run("scancel", f"{job}_5")
    lab.wait_done(20)
    urgent(lab)
    lab.wait_done(30, 180)
    until(lambda: lab.cluster.states(f"{job}_5") == ["CANCELLED"], "the cancelled task to end")
    status = lab.status()
    states = [row["status"] for row in status["rows"]]
    assert states.count("running") <= 16
    assert {task["state"] for task in status["tasks"]} <= {"RUNNING", "PENDING", "COMPLETING", "CANCELLED"}
    assert status["tasks"][5]["state"] == "CANCELLED"
    lab.cluster.kill("slurmctld")
    lab.cluster.kill("node2")
    lab.cluster.start("slurmctld")
    lab.wait_done(60, 180)
    lab.cluster.start("node2")
    # A killed slurmctld forgets the last seconds, and starts tasks beside themselves. What it then holds is let go by the
    # same command; the nodes that it drains are let in again by an administrator.
    follower = lab.start("submit", "job.yaml", "--wait")
    follower.communicate(timeout=300)
    assert follower.returncode in (0, 3)
    lab.cluster.let_in()
    lab.finish()
    assert len(lab.run.records()) == 120
    until(lambda: "held" not in lab.cluster.run("squeue", "-h", "-r", "-j", job, "-o", "%r"), "no task to be held")
    # It may also believe for minutes in tasks that ended in the seconds that it forgot.
    lab.genrun("cancel", "lab")
    lab.wait_over(job)


def test_tasks_that_no_node_could_start_are_held_and_let_go_by_the_same_command(lab: Lab) -> None:
    lab.write_job(4, launch={"array": 2, "gpus": 1})
    for node in lab.cluster.nodes:
        lab.cluster.break_spool(node)
    job = lab.submit()
    until(lambda: "held" in lab.cluster.say("squeue", "-h", "-r", "-j", job, "-o", "%r"), "Slurm to hold a task")
    said = lab.genrun("status")
    assert "held by Slurm, which could not start it; the same submission again" in said.stdout
    for node in lab.cluster.nodes:
        lab.cluster.mend_spool(node)
    lab.cluster.let_in()
    began = time.time()
    lab.finish()
    note_time("a node's spool cannot be written: held, then the same command", time.time() - began)
    lab.wait_over(job)
