"""Submitting to a real Slurm: what is printed, what reaches a shell, what is refused, and nothing is submitted twice."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from genrun.runner.store.folder import RunFolder
from tests.fakes import worker
from tests.slurm.cluster import until
from tests.slurm.conftest import Lab, make_lab, wrap

pytestmark = pytest.mark.e2e

HOSTILE = """we"ird 'name' $(touch pwned) `touch pwned`; touch pwned #%a %j&|*"""


def scripts(folder: RunFolder) -> list[Path]:
    return sorted(folder.logs.glob("*/job.sbatch"))


def test_an_array_makes_every_item_once(lab: Lab) -> None:
    lab.write_job(12, launch={"array": 3})
    said = lab.genrun("submit", "job.yaml", "--wait", "--json")
    assert (said.json["done"], said.json["failed"], said.json["pending"]) == (12, 0, 0)
    lab.wait_over(said.json["jobs"][0])
    assert lab.cluster.states(said.json["jobs"][0]) == ["COMPLETED"] * 3
    lab.check_whole()
    ranks = {path.relative_to(lab.run.logs).as_posix().split("/", 1)[1] for path in lab.run.logs.glob("*/*/rank-*.log")}
    assert ranks == {f"task-{task}/rank-{rank}.log" for task in range(3) for rank in range(2)}


def test_a_dry_run_prints_a_script_that_bash_reads_and_writes_nothing(lab: Lab) -> None:
    lab.write_job(launch={"setup": ["module() { :; }", "module load 'cuda 12'"], "options": {"mail-type": "END"}})
    said = lab.genrun("submit", "job.yaml", "-n")
    script = said.stdout.partition("\n\n")[2]
    assert script.startswith("#!/usr/bin/env bash\n")
    assert "#SBATCH --array=0-1\n" in script
    assert "#SBATCH --mail-type=END\n" in script
    assert "\nmodule load 'cuda 12'\n" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert json.loads(lab.genrun("submit", "job.yaml", "-n", "--json").stdout)["script"].startswith(
        "#!/usr/bin/env bash\n"
    )
    assert [path.name for path in lab.path.iterdir()] == ["job.yaml"]


@pytest.mark.parametrize("name", [HOSTILE, "new\nline $(touch pwned)", "back\\slash %a $(touch pwned)"])
def test_hostile_folders_options_and_prompts_never_reach_a_shell(lab: Lab, name: str) -> None:
    here = lab.path / name
    here.mkdir()
    odd = make_lab(lab.cluster, here)
    comment = "a\"b $(touch pwned) 'c' \\ #d `touch pwned`; touch pwned"
    odd.write_job(
        prompts=["$(touch pwned)", "'; touch pwned; '", "a\n#SBATCH --hold\nb"],
        launch={"options": {"comment": comment}},
        output={"dir": str(here / "runs")},
    )
    job = odd.genrun("submit", "job.yaml", "--wait", "--json").json["jobs"][0]
    odd.check_whole()
    assert lab.cluster.run("squeue", "-h", "-t", "all", "-j", job, "-o", "%k").splitlines()[0] == comment
    assert not list(lab.path.rglob("pwned"))
    (log,) = odd.run.logs.glob("*/task-0.log")
    assert log.is_file()


@pytest.mark.parametrize(
    ("launch", "place", "words"),
    [
        ({"partition": "nope"}, "launch.partition", "invalid partition specified: nope"),
        ({"gpus": 99}, "launch.gpus", "Requested node configuration is not available"),
        ({"partition": "short", "time": "9-00:00:00"}, "launch.time", "Requested time limit is invalid"),
        ({"options": {"nonsense": 3}}, "launch.options.nonsense", "unrecognized option '--nonsense=3'"),
        ({"options": {"constraint": "x"}}, "launch.options.constraint", "Invalid feature specification"),
        ({"options": {"mem": "12Q"}}, "launch.options.mem", "Invalid --mem specification"),
    ],
)
def test_what_slurm_refuses_is_told_in_its_words_with_our_line(
    lab: Lab, launch: dict[str, Any], place: str, words: str
) -> None:
    lab.write_job(launch=launch)
    text = (lab.path / "job.yaml").read_text().splitlines()
    key = place.rpartition(".")[2]
    line = next(number for number, words in enumerate(text, 1) if words.strip().startswith(f"{key}:"))
    stderr = lab.genrun("submit", "job.yaml", exit_code=2).stderr
    assert f"job.yaml:{line}:" in stderr
    assert f" {place}: sbatch: " in stderr
    assert words in stderr
    assert lab.cluster.say("squeue", "-h") == ""


def test_the_users_own_template_replaces_ours(lab: Lab) -> None:
    (lab.path / "mine.j2").write_text(
        "#!/bin/bash\n{% for line in directives %}\n{{ line }}\n{% endfor %}\n"
        "{{ python | shell }} {{ worker | shell }} {{ run | shell }} --job {{ order }} --task $SLURM_ARRAY_TASK_ID\n"
    )
    lab.write_job(launch={"template": "mine.j2", "array": 1})
    lab.genrun("submit", "job.yaml", "--wait")
    lab.check_whole()
    (script,) = scripts(lab.run)
    assert script.read_text().startswith("#!/bin/bash\n#SBATCH --job-name=lab.")


def test_a_template_with_a_mistake_is_refused_with_its_line(lab: Lab) -> None:
    (lab.path / "mine.j2").write_text("#!/bin/bash\n{{ nonsense }}\n")
    lab.write_job(launch={"template": "mine.j2"})
    stderr = lab.genrun("submit", "job.yaml", exit_code=2).stderr
    assert "launch.template: " in stderr
    assert "'nonsense' is undefined" in stderr


def test_a_secret_of_the_environment_reaches_the_workers_but_no_file(lab: Lab) -> None:
    lab.write_job(launch={"setup": ['test "$(wc -c <<<"${MY_TOKEN}")" = 10', "touch set-up"]})
    lab.genrun("submit", "job.yaml", "--wait", environ={"MY_TOKEN": "hush hush"})
    lab.check_whole()
    assert (lab.path / "set-up").exists()
    assert not [path for path in lab.path.rglob("*") if path.is_file() and b"hush hush" in path.read_bytes()]


def test_more_items_than_an_array_may_have_tasks_are_chunked(lab: Lab) -> None:
    lab.write_job(10_000, launch={"array": "auto", "gpus": 1, "options": {"hold": True}})
    job = lab.submit()
    assert len(lab.cluster.states(job)) == 1001
    assert len(lab.status()["tasks"]) == 1001
    lab.cluster.run("scancel", job)
    lab.write_job(3, launch={"array": 500, "at_once": 2, "gpus": 1})
    assert "#SBATCH --array=0-2%2\n" in lab.genrun("submit", "job.yaml", "-n").stdout


def test_a_run_that_is_at_work_is_not_submitted_again_but_may_be_joined(lab: Lab) -> None:
    lab.write_job(40, launch={"array": 1, "gpus": 1})
    job = lab.submit(nap=1.5)
    lab.wait_done(1)
    again = lab.genrun("submit", "job.yaml", "--json")
    assert again.json["jobs"] == [job]
    assert "at work already" in again.stderr
    join = lab.genrun("submit", "--join", "lab", "--set", "launch.array=2", "--json", environ={worker.NAP: "0.1"})
    joined = join.json["jobs"]
    assert joined[0] == job
    assert len(joined) == 2
    lab.wait_over(job)
    lab.check_whole()
    makers = {record.job.rpartition(".")[0] for record in lab.run.records().values()}
    assert len(makers) > 1


def test_whoever_stops_following_leaves_the_job_in_the_queue(lab: Lab) -> None:
    lab.write_job(20, launch={"array": 1, "gpus": 1})
    follower = lab.start("submit", "job.yaml", "--wait", environ={worker.NAP: "1"})
    until(lambda: (lab.path / "runs" / "lab" / "latest").exists() and lab.run.tally().done, "an item")
    follower.send_signal(signal.SIGINT)
    _, stderr = follower.communicate(timeout=60)
    assert follower.returncode == 3
    assert "no longer followed, but still in the queue: job 1: " in stderr
    assert lab.cluster.states("1") == ["RUNNING"]


def test_without_slurm_nothing_is_submitted_and_nothing_is_left_to_wonder_about(lab: Lab) -> None:
    lab.write_job()
    bare = lab.path / "bin"
    bare.mkdir()
    for _ in range(2):
        stderr = lab.genrun("submit", "job.yaml", exit_code=2, environ={"PATH": str(bare)}).stderr
        assert "launch: slurm: no cluster answers: its commands are not on this machine." in stderr
        assert not (lab.path / "runs").exists()
    lab.genrun("submit", "job.yaml", "--wait")
    lab.check_whole()


def test_a_submission_that_times_out_after_it_was_accepted_is_found_again(lab: Lab) -> None:
    slow = wrap(
        lab,
        "sbatch",
        'REAL "$@" >/dev/null\n'
        'echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1',
    )
    slow.write_job()
    job = slow.submit("--wait")
    lab.check_whole()
    assert set(lab.cluster.run("squeue", "-h", "-t", "all", "-o", "%F").split()) == {job}


def test_a_submission_whose_answer_was_never_heard_is_found_by_the_next(lab: Lab) -> None:
    cut_off = wrap(lab, "sbatch", 'REAL "$@" >/dev/null; kill -9 $PPID')
    cut_off.write_job()
    cut_off.genrun("submit", "job.yaml", exit_code=-9, environ={worker.NAP: "1"})
    again = lab.genrun("submit", "job.yaml", "--json", "--wait")
    lab.check_whole()
    assert [*set(lab.cluster.run("squeue", "-h", "-t", "all", "-o", "%F").split())] == again.json["jobs"]
    assert lab.status()["jobs"] == again.json["jobs"]


def test_submits_at_one_moment_end_in_one_run_and_one_array(lab: Lab) -> None:
    lab.write_job(launch={"gpus": 1})
    submits = [lab.start("submit", "job.yaml", "--json", environ={worker.NAP: "0.5"}) for _ in range(3)]
    answers = [json.loads(process.communicate(timeout=240)[0].splitlines()[-1]) for process in submits]
    assert [process.returncode for process in submits] == [0] * 3
    assert len(list((lab.path / "runs" / "lab").glob("2*/plan.jsonl"))) == 1
    (job,) = answers[0]["jobs"]
    assert [(answer["run"], answer["jobs"]) for answer in answers] == [(str(lab.run.path), [job])] * 3
    assert set(lab.cluster.run("squeue", "-h", "-t", "all", "-o", "%F").split()) == {job}
    lab.wait_over(job)
    lab.check_whole()
