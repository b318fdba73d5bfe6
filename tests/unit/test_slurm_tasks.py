"""Tasks as Slurm's programs and their own notes tell of them, with programs of the test's own in Slurm's place."""

from pathlib import Path

import pytest

from genrun.slurm import sbatch, tasks
from genrun.slurm.commands import Commands, NoSlurmError, SlurmError, UnreachableError, clean
from genrun.slurm.launcher import task_logs
from genrun.slurm.submissions import JobRequest, poll
from genrun.slurm.tasks import Task, amended, events, explain, remembered


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    program(tmp_path / "bin", "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    return Commands({"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}, timeout_s=10)


def note(logs: Path, task: int, *lines: str) -> None:
    logs.mkdir(exist_ok=True)
    (logs / f"task-{task}.events").write_text("".join(f"{line}\n" for line in lines))


def test_settings_of_a_job_around_us_and_of_squeue_are_left_out() -> None:
    environ = {
        "SLURM_CONF": "/etc/slurm.conf",
        "SLURM_MEM_PER_CPU": "1",
        "SBATCH_PARTITION": "x",
        "SQUEUE_FORMAT": "y",
        "HOME": "/",
    }
    assert clean(environ) == {"SLURM_CONF": "/etc/slurm.conf", "HOME": "/"}


def test_a_program_that_is_missing_hangs_or_fails_is_told_apart(tmp_path: Path, commands: Commands) -> None:
    with pytest.raises(NoSlurmError, match="sinfo-of-nowhere: not found"):
        commands.run("sinfo-of-nowhere")
    program(tmp_path / "bin", "sinfo", "sleep 10")
    with pytest.raises(UnreachableError, match="gave no answer"):
        Commands(commands.environ, timeout_s=0.2).run("sinfo")
    program(tmp_path / "bin", "sinfo", "echo 'sinfo: error: Invalid node' >&2; exit 1")
    with pytest.raises(SlurmError, match=r"^sinfo: Invalid node\.$"):
        commands.run("sinfo")
    program(
        tmp_path / "bin", "sinfo", "echo 'slurm_load: Unable to contact slurm controller (connect failure)' >&2; exit 1"
    )
    with pytest.raises(UnreachableError):
        commands.run("sinfo")


def test_only_tasks_of_our_names_are_ours(tmp_path: Path, commands: Commands) -> None:
    program(
        tmp_path / "bin",
        "squeue",
        "cat <<'END'\nx.1|7|0|RUNNING|None|node1|2|\nx.1|7|1|PENDING|Resources||0|\n"
        "x.10|7|0|RUNNING|None|n|0|\nnonsense\nEND",
    )
    assert tasks.ask_queue(commands, "0", ["x.1"]) == [
        Task("x.1", "7", 0, "RUNNING", "", "node1", 2),
        Task("x.1", "7", 1, "PENDING", "Resources", "", 0),
    ]
    assert tasks.ask_queue(commands, "0", []) == []


@pytest.mark.parametrize(
    ("lines", "state", "reason"),
    [
        ([], "UNKNOWN", "never began"),
        (["1|7_0|0|node1|start|"], "LOST", "ended without a word"),
        (["1|7_0|0|node1|start|", "2|7_0|0|node1|end|0"], "COMPLETED", ""),
        (["1|7_0|0|node1|start|", "2|7_0|0|node1|end|1"], "FAILED", "exit code 1"),
        (["1|7_0|0|node1|start|", "2|7_0|0|node1|stopped|CANCELLED"], "CANCELLED", "stopped by Slurm"),
        (["2|7_0|0|node1|gave-up|too slow | indeed"], "FAILED", "too slow | indeed"),
        (["2|7_0|0|node1|requeue|USR1"], "LOST", "put back into the queue, and gone from it"),
        (["2|7_0|0|node1|end|0", "2|7_0|0|nod"], "COMPLETED", ""),
    ],
)
def test_a_task_that_slurm_has_forgotten_is_told_by_its_notes(
    tmp_path: Path, lines: list[str], state: str, reason: str
) -> None:
    note(tmp_path / "logs", 0, *lines)
    (task,) = remembered("x.1", 1, events(tmp_path / "logs"), is_forgotten=True)
    assert (task.state, task.reason) == (state, reason)
    assert not task.is_live


def test_without_an_answer_nothing_is_said_to_be_over(tmp_path: Path, commands: Commands) -> None:
    program(tmp_path / "bin", "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    note(tmp_path / "logs", 0, "1|7_0|3|node1|start|")
    answer = poll(commands, "0", [JobRequest("x.1", "7", 2, tmp_path / "logs")])
    assert "Unable to contact slurm controller" in answer.trouble
    assert [(task.state, task.reason, task.restarts) for task in answer.tasks] == [
        ("UNKNOWN", "was at work when last heard of", 3),
        ("UNKNOWN", "", 0),
    ]


def test_accounts_of_another_job_of_the_same_number_are_not_ours(tmp_path: Path, commands: Commands) -> None:
    program(tmp_path / "bin", "squeue", "exit 0")
    program(
        tmp_path / "bin", "sacct", "echo '7_0|stranger|COMPLETED|0:0|node1'; echo '7_1|x.1|CANCELLED by 0|0:0|node2'"
    )
    note(tmp_path / "logs", 0, "1|7_0|0|node9|start|")
    answer = poll(commands, "0", [JobRequest("x.1", "7", 2, tmp_path / "logs")])
    assert [(task.state, task.nodes) for task in answer.tasks] == [("LOST", "node9"), ("CANCELLED", "node2")]
    assert answer.has_accounting


def test_a_task_that_gave_up_tells_why_whatever_slurm_calls_it(tmp_path: Path, commands: Commands) -> None:
    program(tmp_path / "bin", "squeue", "echo 'x.1|7|0|FAILED|NonZeroExitCode|node1|0|'")
    note(tmp_path / "logs", 0, "1|7_0|2|node1|start|", "2|7_0|2|node1|gave-up|no disk")
    (task,) = poll(commands, "0", [JobRequest("x.1", "7", 1, tmp_path / "logs")]).tasks
    assert (task.state, task.reason, task.restarts) == ("FAILED", "no disk", 2)


def test_a_submission_without_an_answer_is_looked_up_before_it_is_repeated(tmp_path: Path, commands: Commands) -> None:
    waits: list[float] = []
    program(
        tmp_path / "bin",
        "sbatch",
        f"echo once >>{tmp_path}/calls; [ $(wc -l <{tmp_path}/calls) = 2 ] && echo 8 || "
        "{ echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1; }",
    )
    program(tmp_path / "bin", "squeue", "exit 0")
    script = tmp_path / "job.sbatch"
    assert sbatch.submit(commands, script, "x.1", "0", sleep=waits.append) == "8"
    assert waits == [2.0]
    program(tmp_path / "bin", "squeue", "echo 'x.1|9|0|PENDING|Priority||0|'")
    assert sbatch.submit(commands, script, "x.1", "0", sleep=waits.append) == "9"
    assert len((tmp_path / "calls").read_text().splitlines()) == 3


def test_a_submission_that_nobody_answers_is_given_up(tmp_path: Path, commands: Commands) -> None:
    for name in ("sbatch", "squeue"):
        program(tmp_path / "bin", name, "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(UnreachableError):
        sbatch.submit(commands, tmp_path / "job.sbatch", "x.1", "0", sleep=lambda _: None)


def test_a_refusal_is_not_repeated(tmp_path: Path, commands: Commands) -> None:
    program(tmp_path / "bin", "sbatch", f"echo once >>{tmp_path}/calls; echo 'Invalid qos specification' >&2; exit 1")
    with pytest.raises(SlurmError, match="Invalid qos specification"):
        sbatch.submit(commands, tmp_path / "job.sbatch", "x.1", "0")
    assert (tmp_path / "calls").read_text() == "once\n"


def test_the_logs_of_tasks_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("task-10/rank-0.log", "task-2/rank-10.log", "task-2/rank-9.log", "task-2.log", "task-10.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [path.relative_to(tmp_path).as_posix() for path in task_logs(tmp_path)]
    assert names == ["task-2.log", "task-2/rank-9.log", "task-2/rank-10.log", "task-10.log", "task-10/rank-0.log"]
    assert [path.name for path in task_logs(tmp_path, 10)] == ["task-10.log", "rank-0.log"]


@pytest.mark.parametrize("state", ["RUNNING", "COMPLETING", "COMPLETED"])
def test_what_a_task_waited_for_is_told_only_while_it_waits(state: str) -> None:
    assert amended(Task("x", "7", 0, "PENDING", "JobHeldAdmin"), []).reason == "JobHeldAdmin"
    assert amended(Task("x", "7", 0, state, "JobHeldAdmin"), []).reason == ""


def test_reasons_that_need_a_word_have_one() -> None:
    assert "could not write its log" in explain(Task("x", "7", 0, "FAILED", "JobLaunchFailure"))
    assert "could not write its log" in explain(Task("x", "7", 0, "FAILED", "RaisedSignal:53(Real-time signal 19)"))
    assert explain(Task("x", "7", 0, "FAILED", "RaisedSignal:9(Killed)")) == "killed by signal 9"
    assert explain(Task("x", "7", 0, "PENDING", "Priority")) == "Priority"


@pytest.mark.parametrize("reason", ["launch failed requeued held", "launch_failed_requeued_held"])
def test_a_task_that_slurm_could_not_start_is_held_and_says_what_helps(reason: str) -> None:
    held = Task("x", "1", 0, "PENDING", reason)
    assert held.is_held
    assert explain(held).endswith("the same submission again, or scontrol release, lets it go")
    assert not Task("x", "1", 0, "PENDING", "JobHeldUser").is_held
