"""Submitting, polling and cancelling jobs, and finding their logs. A job is known by its name, which is never used again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genrun.slurm import sacct as accounting
from genrun.slurm import squeue as queue
from genrun.slurm.commands import Commands, SlurmError, UnreachableError
from genrun.slurm.tasks import LIVE, Event, Task, amended, events, remembered

PAUSES_S = (2.0, 10.0, 30.0)
"""Waits before looking up whether a submission that gave no answer was accepted after all."""

DEFAULT_MAX_ARRAY = 1001


@dataclass(frozen=True)
class Job:
    """A job as the run folder remembers it.

    Attributes:
        name: its name, unique.
        id: its number, or "" when sbatch's answer was never heard.
        tasks: how many tasks its array has.
        logs: the folder of its scripts, logs and notes.
    """

    name: str
    id: str
    tasks: int
    logs: Path


@dataclass(frozen=True)
class Answer:
    """What is known of the tasks of several jobs.

    Attributes:
        tasks: every task of every job, in order.
        trouble: why slurmctld could not be asked, or "".
        has_accounting: whether the cluster keeps accounts; None when they were not needed.
    """

    tasks: Sequence[Task]
    trouble: str = ""
    has_accounting: bool | None = None


def submit(
    commands: Commands, script: Path, name: str, user: str, *, sleep: Callable[[float], None] = time.sleep
) -> str:
    """Hand a script to sbatch, and return the job's number; never twice, also when sbatch gives no answer.

    Args:
        commands: Slurm's programs.
        script: the batch script, whose job has the name `name`.
        name: under which the job is looked up when sbatch gave no answer.
        user: whose job it will be.
        sleep: waits.

    Raises:
        UnreachableError: slurmctld does not answer; whether it took the job is looked up by the next submission.
        SlurmError: it refused the job.
    """
    trouble: UnreachableError | None = None
    for pause in (0.0, *PAUSES_S):
        if trouble is not None:
            sleep(pause)
            if found := look_up(commands, name, user):
                return found
        try:
            return _sbatch(commands, script)
        except UnreachableError as error:
            trouble = error
    raise trouble or UnreachableError("sbatch: gave no answer.")


def look_up(commands: Commands, name: str, user: str) -> str:
    """Return the number of the job of that name, or "" when slurmctld knows none.

    Raises:
        SlurmError: there is no answer.
    """
    return max((task.job for task in queue.ask(commands, user, [name])), key=int, default="")


def poll(commands: Commands, user: str, jobs: Sequence[Job]) -> Answer:
    """Return what has become of every task: by slurmctld, then by the accounts, then by the tasks' own notes."""
    notes = {job.name: events(job.logs) for job in jobs}
    try:
        seen = queue.ask(commands, user, [job.name for job in jobs])
    except SlurmError as error:
        known = [task for job in jobs for task in remembered(job.name, job.tasks, notes[job.name], is_forgotten=False)]
        return Answer(known, trouble=str(error))
    found = {(task.name, task.task): task for task in seen}
    has_accounting = None
    missing = [job for job in jobs if job.id and any((job.name, task) not in found for task in range(job.tasks))]
    if missing:
        try:
            accounted = accounting.ask(commands, {job.id: job.name for job in missing})
            found = {(task.name, task.task): task for task in accounted} | found
            has_accounting = True
        except SlurmError:
            has_accounting = False
    return Answer(_merged(jobs, found, notes), has_accounting=has_accounting)


def cancel(commands: Commands, user: str, name: str, ids: Sequence[str]) -> None:
    """Cancel a job, or some of its tasks ("123_4"); nothing of another name, should a number be used again.

    Raises:
        SlurmError: scancel failed.
    """
    commands.run("scancel", f"--user={user}", f"--name={name}", *ids)


def release(commands: Commands, tasks: Sequence[Task]) -> None:
    """Let tasks go that are held.

    Raises:
        SlurmError: Slurm does not.
    """
    commands.run("scontrol", "release", *(task.id for task in tasks))


def wait_behind(commands: Commands, job: str, others: Sequence[str]) -> None:
    """Put the running job `job` back into the queue until all `others` are over; its processes are ended.

    Raises:
        SlurmError: it could not be put back.
    """
    commands.run("scontrol", "requeue", "incomplete", job)
    commands.run("scontrol", "update", f"JobId={job}", f"Dependency=afterany:{':'.join(others)}")


def max_array(commands: Commands) -> int:
    """Return how many tasks an array may have (MaxArraySize caps the largest index, so that 0 .. size - 1 fit).

    Raises:
        SlurmError: there is no answer.
    """
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", commands.run("scontrol", "show", "config"), re.MULTILINE)
    return int(match[1]) if match else DEFAULT_MAX_ARRAY


def logs(job: Job, task: int | None = None) -> list[Path]:
    """Return the logs of a job or of one of its tasks: those of the ranks, then what the batch script wrote."""
    one = "*" if task is None else str(task)
    found = [*job.logs.glob(f"task-{one}/rank-*.log"), *job.logs.glob(f"task-{one}.log")]
    return sorted(found, key=lambda path: [int(part) if part.isdigit() else part for part in _parts(path, job.logs)])


def _sbatch(commands: Commands, script: Path) -> str:
    output = commands.run("sbatch", "--parsable", str(script), cwd=script.parent)
    job = output.strip().splitlines()[-1].partition(";")[0] if output.strip() else ""
    if not job.isdigit():
        raise UnreachableError(f"sbatch: answered {output.strip()!r}, which is no job number.")
    return job


def _merged(
    jobs: Sequence[Job], found: Mapping[tuple[str, int], Task], notes: Mapping[str, Mapping[int, Sequence[Event]]]
) -> list[Task]:
    tasks = []
    for job in jobs:
        for task in remembered(job.name, job.tasks, notes[job.name], is_forgotten=True):
            seen = found.get((job.name, task.task))
            tasks.append(task if seen is None else amended(seen, notes[job.name].get(task.task, ())))
    return tasks


def _parts(path: Path, logs: Path) -> list[str]:
    return re.split(r"(\d+)", path.relative_to(logs).as_posix())


def is_over(tasks: Sequence[Task]) -> bool:
    """Whether none of these tasks is live."""
    return all(task.state not in LIVE for task in tasks)
