"""Jobs that follow the items: they look at the run themselves, whatever Slurm believes of the job before."""

import json

import pytest

from tests.slurm.cluster import until
from tests.slurm.conftest import Lab

pytestmark = pytest.mark.e2e


def step_of(lab: Lab, name: str) -> dict[str, str]:
    return next(task for task in lab.status()["tasks"] if task["step"] == name)


def log_of(lab: Lab, name: str) -> str:
    (log,) = lab.run.logs.glob(f"slurm-*/{name}/task-0.log")
    return log.read_text()


def test_each_step_waits_for_the_one_before(lab: Lab) -> None:
    lab.write_job(8, launch={"array": 1, "gpus": 1, "then": ["score", {"step": "report", "options": {"nice": 7}}]})
    job = lab.submit(nap=2)
    score, report = step_of(lab, "score"), step_of(lab, "report")
    assert (score["state"], score["reason"]) == ("PENDING", "Dependency")
    shown = lab.cluster.run("squeue", "-h", "-o", "%A %E %y")
    assert f"{score['job']} afterany:{job}" in shown
    assert f"{report['job']} afterany:{score['job']}(unfulfilled) 7" in shown


def test_a_step_that_starts_too_early_goes_back_behind_those_who_are_at_work(lab: Lab) -> None:
    lab.write_job(60, launch={"array": 1, "gpus": 1, "then": ["score"]})
    job = lab.submit(nap=1)
    score = step_of(lab, "score")["job"]
    lab.cluster.run("scontrol", "update", f"JobId={score}", "Dependency=")
    until(lambda: "waiting behind" in log_of(lab, "score") if list(lab.run.logs.glob("*/score/*.log")) else False, "it")
    until(lambda: lab.cluster.states(score) == ["PENDING"], "the step to be back in the queue")
    assert f"afterany:{job}" in lab.cluster.run("squeue", "-h", "-j", score, "-o", "%E")
    assert f"items are not finished: waiting behind {job}" in log_of(lab, "score")


def test_a_step_is_not_let_go_by_a_task_that_is_requeued(lab: Lab) -> None:
    lab.write_job(30, launch={"array": 1, "gpus": 1, "then": ["score"]})
    job = lab.submit(nap=1)
    lab.wait_done(1)
    score = step_of(lab, "score")["job"]
    lab.cluster.run("scontrol", "requeue", f"{job}_0")
    lab.wait_done(4)
    assert lab.cluster.states(score) == ["PENDING"]


def test_a_step_of_a_run_that_was_cancelled_fails_and_says_what_is_missing(lab: Lab) -> None:
    lab.write_job(60, launch={"array": 1, "gpus": 1, "then": ["score"]})
    job = lab.submit(nap=1)
    lab.wait_done(1)
    score = step_of(lab, "score")["job"]
    lab.cluster.run("scancel", job)
    lab.wait_over(score)
    assert lab.cluster.states(score) == ["FAILED"]
    text = log_of(lab, "score")
    assert "items are not finished, and no job is at work on it: " in text
    assert "To go on, run the same command again; finished items are kept." in text
    assert step_of(lab, "score")["state"] == "FAILED"
    assert "score/task-0.log" in lab.genrun("status").stderr


def test_cancelling_a_run_cancels_its_steps(lab: Lab) -> None:
    lab.write_job(8, launch={"array": 1, "gpus": 1, "then": ["score", "report"]})
    lab.submit(nap=1)
    assert len(lab.genrun("cancel", "lab").stdout.split()) == 3
    until(lambda: lab.cluster.say("squeue", "-h") == "", "the queue to be empty")


def test_a_step_that_slurm_refuses_takes_the_items_back(lab: Lab) -> None:
    lab.write_job(4, launch={"then": [{"step": "score", "options": {"partition": "nope"}}]})
    stderr = lab.genrun("submit", "job.yaml", exit_code=2).stderr
    assert "launch.then[0].options.partition: sbatch: invalid partition specified: nope" in stderr
    assert stderr.startswith("job.yaml:")
    until(lambda: lab.cluster.say("squeue", "-h") == "", "the queue to be empty")


@pytest.mark.parametrize("ends", ["done", "cancelled"])
def test_who_is_to_be_told_is_told_by_a_job_of_the_queue(lab: Lab, ends: str) -> None:
    told = lab.path / "told.json"
    lab.write_job(4 if ends == "done" else 60, launch={"array": 1, "gpus": 1}, notify={"command": ["tee", str(told)]})
    job = lab.submit(nap=0.1 if ends == "done" else 1)
    notify = step_of(lab, "notify")["job"]
    if ends == "cancelled":
        lab.wait_done(1)
        lab.cluster.run("scancel", job)
    lab.wait_over(notify)
    found = json.loads(told.read_text())
    assert (found["run"], found["state"]) == (str(lab.run.path), "done" if ends == "done" else "incomplete")
    assert (found["pending"] == 0) == (ends == "done")
