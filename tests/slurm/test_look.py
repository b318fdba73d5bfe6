"""`status`, `logs`, `cancel` and `retry` of runs in a real queue, from the run folder alone."""

import itertools
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from genrun.runner.store.lease import holdings
from tests.slurm.cluster import kill_all, until
from tests.slurm.conftest import Lab, wrap

pytestmark = pytest.mark.e2e

ALONE = {"gpus": 1, "options": {"exclusive": True}}
"""One task a node."""


def tasks_of(status: dict[str, Any]) -> list[tuple[str, str]]:
    return [(task["state"], task["reason"]) for task in status["tasks"]]


def test_status_tells_items_and_tasks_with_slurms_reason(lab: Lab) -> None:
    lab.write_job(12, launch={"array": 6, **ALONE})
    job = lab.submit(nap=8)
    until(lambda: len(holdings(lab.run)) == 4, "four items in work")
    until(lambda: "Resources" in lab.cluster.run("squeue", "-h", "-r", "-o", "%r"), "Slurm to say why")
    status = lab.status()
    assert status["jobs"] == [job]
    states = [row["status"] for row in status["rows"]]
    assert states.count("running") == 4
    assert states.count("running") + states.count("pending") + states.count("done") == 12
    assert tasks_of(status)[:4] == [("RUNNING", "")] * 4
    assert [state for state, _ in tasks_of(status)[4:]] == ["PENDING"] * 2
    assert "Resources" in {reason for _, reason in tasks_of(status)[4:]} <= {"Resources", "Priority", ""}
    lines = [line.split() for line in lab.genrun("status").stdout.splitlines()]
    assert [job, "items", "4", "RUNNING", "0", "node1,node2,node3,node4"] in lines


def test_status_asks_squeue_once_however_many_jobs_there_are(lab: Lab) -> None:
    counted = wrap(lab, "squeue", 'echo "$@" >>asked; REAL "$@"')
    lab.write_job(60, launch={"array": 1, "gpus": 1})
    lab.submit(nap=1)
    for _ in range(3):
        lab.genrun("submit", "--join", "lab", environ={"GENRUN_TEST_NAP": "1"})
    status = counted.status()
    assert len(status["jobs"]) == 4
    assert len((lab.path / "asked").read_text().splitlines()) == 1


def test_following_asks_squeue_every_ten_seconds_at_most(lab: Lab) -> None:
    # A task that Slurm stops looks at the queue as well, once.
    counted = wrap(lab, "squeue", '[ -n "${SLURM_JOB_ID:-}" ] || date +%s.%N >>asked; REAL "$@"')
    lab.write_job(6, launch={"array": 1, "gpus": 1})
    follower = counted.start("submit", "job.yaml", "--wait", environ={"GENRUN_TEST_NAP": "4"})
    follower.communicate(timeout=120)
    assert follower.returncode == 0
    asked = [float(line) for line in (lab.path / "asked").read_text().splitlines()]
    assert len(asked) > 1
    assert min(later - earlier for earlier, later in itertools.pairwise(asked)) > 9.5


def test_status_without_slurmctld_says_so_and_tells_what_the_run_folder_knows(lab: Lab) -> None:
    lab.write_job(8)
    lab.submit(nap=10)
    until(lambda: len(holdings(lab.run)) == 4, "four items in work")
    lab.cluster.kill("slurmctld")
    said = lab.genrun("status")
    assert "Slurm gives no answer: squeue: " in said.stderr
    assert "was at work when last heard of" in said.stdout
    status = lab.status()
    assert status["slurm"].startswith("squeue: ")
    refusal = lab.genrun("submit", "job.yaml", exit_code=1).stderr
    assert "what has become of them is not known" in refusal
    lab.wait_done(8)
    assert lab.status()["done"] == 8


def test_status_on_a_machine_without_slurm_tells_what_the_run_folder_knows(lab: Lab) -> None:
    lab.write_job(4)
    job = lab.submit("--wait")
    lab.wait_over(job)
    bare = lab.path / "bin"
    bare.mkdir()
    (bare / "env").symlink_to(shutil.which("env") or "/usr/bin/env")
    said = lab.genrun("status", environ={"PATH": str(bare)})
    assert "squeue: not found" in said.stderr
    assert [job, "items", "2", "COMPLETED", "0"] == said.stdout.splitlines()[-1].split()[:5]


@pytest.mark.accounts
def test_a_number_that_is_used_again_after_a_wipe_is_not_taken_for_ours(lab: Lab) -> None:
    lab.write_job(40, launch={"array": 1, "gpus": 1})
    job = lab.submit(nap=1)
    lab.wait_done(1)
    kill_all(lab.cluster.pids(f"{job}_0"))
    lab.cluster.wipe()
    stranger = lab.cluster.run(
        "sbatch", "--parsable", "--array=0-0", "--output=/dev/null", "--wrap", "sleep 100"
    ).strip()
    assert stranger == job
    status = lab.status()
    # A controller that starts anew has the accounts call what was running before cancelled, sooner or later.
    assert tasks_of(status) in ([("LOST", "ended without a word")], [("CANCELLED", "")])
    assert {row["status"] for row in status["rows"]} == {"done", "pending"}
    until(lambda: lab.cluster.states(stranger) == ["RUNNING"], "the stranger's job")
    assert "nothing of it waits or works" in lab.genrun("cancel").stderr
    assert lab.cluster.states(stranger) == ["RUNNING"]
    lab.genrun("submit", "job.yaml", "--wait")
    lab.check_whole()
    assert lab.cluster.states(stranger) == ["RUNNING"]


def test_logs_of_an_item_are_those_of_every_rank_that_made_it(lab: Lab) -> None:
    lab.write_job(6)
    lab.submit("--wait")
    for item_id, record in lab.run.records().items():
        said = lab.genrun("logs", "lab", item_id)
        order, task, _ = record.job.split(".")
        assert f"logs/{order}/task-{task}/rank-" in said.stderr
        assert said.stdout.count(f"{item_id}: attempt 1") == 1
        assert said.stdout.splitlines()[-1].endswith("s")
    everything = lab.genrun("logs", "lab").stdout
    assert all(item.id in everything for item in lab.run.items())


def test_following_the_logs_shows_an_item_to_its_end(lab: Lab) -> None:
    lab.write_job(4, launch={"array": 1, "gpus": 1})
    lab.submit(nap=1)
    last = lab.run.items()[-1].id
    follower = lab.start("logs", "lab", last, "-f")
    stdout, _ = follower.communicate(timeout=120)
    assert follower.returncode == 0
    assert f"{last}: attempt 1" in stdout
    assert f"{last}: done in" in stdout


def test_following_the_logs_of_a_run_ends_with_its_job(lab: Lab) -> None:
    lab.write_job(4, launch={"array": 1, "gpus": 1})
    lab.submit(nap=0.5)
    follower = lab.start("logs", "lab", "-f")
    stdout, _ = follower.communicate(timeout=120)
    assert follower.returncode == 0
    assert all(f"{item.id}: done in" in stdout for item in lab.run.items())


def test_a_cancelled_array_drops_its_items_and_is_finished_by_the_same_command(lab: Lab) -> None:
    lab.write_job(60)
    job = lab.submit(nap=1)
    lab.wait_done(1)
    assert lab.genrun("cancel", "lab").stdout.split() == [job]
    lab.wait_over(job)
    assert lab.cluster.states(job) == ["CANCELLED"] * 2
    status = lab.status()
    assert status["pending"] > 0
    assert "running" not in {row["status"] for row in status["rows"]}
    lab.finish()


def test_a_cancelled_task_leaves_its_items_to_the_others(lab: Lab) -> None:
    lab.write_job(30)
    job = lab.submit(nap=1)
    until(lambda: len(holdings(lab.run)) == 4, "four items in work")
    assert lab.genrun("cancel", "lab", "--task", "1").stdout.split() == [f"{job}_1"]
    lab.wait_over(job)
    assert sorted(lab.cluster.states(job)) == ["CANCELLED", "COMPLETED"]
    lab.check_whole()


def test_a_cancelled_item_is_dropped_by_its_maker_and_made_by_retry(lab: Lab) -> None:
    lab.write_job(4, launch={"array": 1, "gpus": 1})
    job = lab.submit(nap=6)
    first, *_, last = (item.id for item in lab.run.items())
    until(lambda: first in holdings(lab.run), "the first item in work")
    assert lab.genrun("cancel", "lab", "--item", first, "--item", last).stdout.split() == [first, last]
    lab.wait_over(job)
    status = lab.status()
    assert (status["done"], status["failed"], status["pending"]) == (2, 2, 0)
    kinds = {row["error"]["kind"] for row in status["rows"] if row["status"] == "failed"}
    assert kinds == {"cancelled"}
    again = lab.genrun("retry", "lab", "--wait", "--json")
    assert "2 failed and 0 missing items." in again.stderr
    assert (again.json["done"], again.json["failed"]) == (4, 0)
    lab.check_whole()


def test_retry_submits_what_failed_and_what_is_missing_and_nothing_else(lab: Lab) -> None:
    lab.write_job(6, launch={"max_attempts": 1, "array": 1, "gpus": 1})
    lab.fault("sampling", victim="memory", item=_id(lab, 3))
    job = lab.submit("--wait", exit_code=1)
    lab.wait_over(job)
    stamps = {path: path.stat().st_mtime_ns for path in lab.run.record_files() if path.stem != _id(lab, 3)}
    said = lab.genrun("retry", "lab", "--wait", "--json")
    assert "1 items in job" in said.stderr
    lab.check_whole()
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def _id(lab: Lab, number: int) -> str:
    plan = lab.genrun("plan", "job.yaml", "--json").json
    return str(plan[number]["id"])


def test_records_tell_the_task_that_made_them(lab: Lab) -> None:
    lab.write_job(4)
    started = time.strftime("%Y%m%d")
    lab.submit("--wait")
    for record in lab.run.records().values():
        order, task, restart = record.job.split(".")
        assert order.startswith(f"slurm-{started}")
        assert (int(task) in (0, 1), restart) == (True, "0")
        assert Path(lab.run.path / "logs" / order / f"task-{task}.events").is_file()
