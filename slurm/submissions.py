"""Submissions of a run: what was queued is written down in the run, and what has become of it is asked of Slurm.

A job is known by its name, which is never used again: numbers start again at 1 when a controller's state is wiped.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.errors import DamagedFileError
from genrun.runner.launch.protocol import TaskGroup
from genrun.runner.store.files import atomic_write, read_bytes, reading
from genrun.runner.store.order import log_folder
from genrun.runner.strict_json import read_json
from genrun.slurm import tasks as sacct
from genrun.slurm import tasks as squeue
from genrun.slurm.commands import Commands, SlurmError
from genrun.slurm.tasks import Task, amended, events, remembered, tally

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder

ITEMS = "items"
"""Name of the job that makes items, beside the steps that follow it."""

_OPTION = re.compile(r"^#SBATCH --([a-z-]+)=(.*)$", re.MULTILINE)

FILE = "slurm.json"
SCRIPT = "job.sbatch"


@dataclass(frozen=True)
class JobRequest:
    """A job as Slurm is asked for it.

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
    """State of the tasks of several jobs.

    Attributes:
        tasks: every task of every job, in order.
        trouble: why slurmctld could not be asked, or "".
        has_accounting: whether the cluster keeps accounts; None when they were not needed.
    """

    tasks: Sequence[Task]
    trouble: str = ""
    has_accounting: bool | None = None


@dataclass(frozen=True)
class StoredJob:
    """A job as it is stored.

    Attributes:
        name: the job's name in the queue, unique.
        id: its number, or "" while sbatch's answer has not been heard.
        tasks: tasks of its array.
    """

    name: str
    id: str = ""
    tasks: int = 1


@dataclass(frozen=True)
class SubmittedJobs:
    """The jobs of one launch.

    Attributes:
        order: the launch.
        user: number of the user whose jobs they are.
        jobs: "items", "score", "report" -> the job.
    """

    order: str
    user: str
    jobs: Mapping[str, StoredJob] = field(default_factory=dict)

    def with_job(self, step: str, entry: StoredJob) -> SubmittedJobs:
        """Return the submission with one more job, or a newer state of it."""
        return dataclasses.replace(self, jobs={**self.jobs, step: entry})

    def without_job(self, step: str) -> SubmittedJobs:
        """Return the submission without one of its jobs."""
        return dataclasses.replace(self, jobs={name: entry for name, entry in self.jobs.items() if name != step})

    def save(self, folder: RunFolder) -> None:
        """Write the submission into the run.

        Raises:
            StoreError: the folder cannot be written.
        """
        data = {"user": self.user, "jobs": {step: dataclasses.asdict(entry) for step, entry in self.jobs.items()}}
        atomic_write(log_folder(folder, self.order) / FILE, json.dumps(data, indent=1).encode())

    def job(self, folder: RunFolder, step: str) -> JobRequest:
        """Return one of the jobs as Slurm is asked for it."""
        entry = self.jobs[step]
        return JobRequest(entry.name, entry.id, entry.tasks, job_folder(folder, self.order, step))


@dataclass(frozen=True)
class SlurmQueueState:
    """State of all jobs of a run.

    Attributes:
        folder: the run.
        submissions: oldest first.
        tasks: every task of every job by the job's name.
        trouble: why slurmctld could not be asked, or "".
    """

    folder: RunFolder
    submissions: Sequence[SubmittedJobs]
    tasks: Mapping[str, Sequence[Task]]
    trouble: str = ""

    def job_ids(self) -> list[str]:
        """Return the numbers of the arrays, oldest first."""
        found = [(submission.jobs.get(ITEMS), self.tasks_of(submission)) for submission in self.submissions]
        ids = [(entry and entry.id) or next((task.job for task in tasks if task.job), "") for entry, tasks in found]
        return [job for job in ids if job]

    def log(self, submission: SubmittedJobs, step: str, task: Task) -> Path:
        """Return where the batch log of a task lies."""
        return job_folder(self.folder, submission.order, step) / f"task-{task.task}.log"

    def has_ended(self, worker: str) -> bool:
        """Tell whether the task of a worker, named as in its leases, is over for certain."""
        order, _, rest = worker.partition(".")
        task = rest.partition(".")[0]
        found = [each for each in self.submissions if each.order == order]
        if self.trouble or not found or not task.isdigit():
            return False
        return any(each.task == int(task) and not each.is_live for each in self.tasks_of(found[0]))

    def tasks_of(self, submission: SubmittedJobs, step: str = ITEMS) -> Sequence[Task]:
        """Return the tasks of one job."""
        return self.tasks.get(submission.jobs[step].name, ()) if step in submission.jobs else ()

    def held(self) -> list[Task]:
        """Return the tasks that Slurm could not start, and holds."""
        return [task for tasks in self.tasks.values() for task in tasks if task.is_held]

    def live(self, *steps: str) -> list[tuple[SubmittedJobs, str]]:
        """Return the jobs that are not over, each as its submission and step; of all steps unless some are named."""
        return [
            (submission, step)
            for submission in self.submissions
            for step in submission.jobs
            if (not steps or step in steps) and any(task.is_live for task in self.tasks_of(submission, step))
        ]

    @property
    def is_empty(self) -> bool:
        """True for a run that was never in the queue."""
        return not self.submissions

    @property
    def live_jobs(self) -> list[str]:
        """Numbers of the jobs that are not over."""
        return [self.tasks_of(submission, step)[0].job for submission, step in self.live()]

    def live_tasks(self, task: str) -> list[str]:
        """Return the tasks of that number ("3" or "1234_3") that are not over, as Slurm's commands call them."""
        found = [each for submission, _ in self.live(ITEMS) for each in self.tasks_of(submission)]
        return [each.id for each in found if task in (each.id, str(each.task)) and each.is_live]

    def groups(self) -> list[TaskGroup]:
        """Group the tasks by job, state and reason."""
        groups = []
        for submission in self.submissions:
            for step, entry in submission.jobs.items():
                for (state, why), tasks in tally(self.tasks_of(submission, step)).items():
                    is_bad = not tasks[0].is_live and state not in ("COMPLETED", "CANCELLED", "UNKNOWN")
                    groups.append(
                        TaskGroup(
                            job=entry.id or "?",
                            step=step,
                            tasks=len(tasks),
                            state=state,
                            restarted=sum(task.restarts > 0 for task in tasks),
                            why=why,
                            nodes=",".join(sorted({task.nodes for task in tasks if task.nodes})),
                            bad_log=self.log(submission, step, tasks[0]) if is_bad else None,
                        )
                    )
        return groups

    def rows(self) -> list[dict[str, Any]]:
        """List every task for scripts."""
        return [
            {
                "job": task.job or entry.id,
                "step": step,
                "task": task.task,
                "state": task.state,
                "reason": task.reason,
                "nodes": task.nodes,
                "restarts": task.restarts,
            }
            for submission in self.submissions
            for step, entry in submission.jobs.items()
            for task in self.tasks_of(submission, step)
        ]


def job_folder(folder: RunFolder, order: str, step: str) -> Path:
    """Return where a job's script, logs and notes lie."""
    logs = log_folder(folder, order)
    return logs if step == ITEMS else logs / step


def load(folder: RunFolder) -> list[SubmittedJobs]:
    """Read every submission of a run, oldest first.

    Raises:
        StoreError: one cannot be read.
    """
    found = [(path, _read(path)) for path in folder.logs.glob(f"*/{FILE}")]
    # The name of an order begins with its launcher and goes on with the time.
    return [submission for _, submission in sorted(found, key=lambda pair: pair[0].parent.name)]


def queue_state(folder: RunFolder, commands: Commands) -> SlurmQueueState:
    """Ask what has become of every job of a run: one call of squeue, and where it has forgotten some, one of sacct.

    Raises:
        StoreError: the run cannot be read.
    """
    submissions = load(folder)
    jobs = [submission.job(folder, step) for submission in submissions for step in submission.jobs]
    if not jobs:
        return SlurmQueueState(folder, submissions, {})
    # A run is submitted by one user; one who joins in with another account is asked for by the first's.
    answer = poll(commands, ",".join(sorted({submission.user for submission in submissions})), jobs)
    by_name: dict[str, list[Task]] = {}
    for task in answer.tasks:
        by_name.setdefault(task.name, []).append(task)
    return SlurmQueueState(folder, submissions, by_name, answer.trouble)


def poll(commands: Commands, user: str, jobs: Sequence[JobRequest]) -> Answer:
    """Return what has become of every task: by slurmctld, then by the accounts, then by the tasks' own notes."""
    notes = {job.name: events(job.logs) for job in jobs}
    try:
        seen = squeue.ask_queue(commands, user, [job.name for job in jobs])
    except SlurmError as error:
        known = [task for job in jobs for task in remembered(job.name, job.tasks, notes[job.name], is_forgotten=False)]
        return Answer(known, trouble=str(error))
    found = {(task.name, task.task): task for task in seen}
    has_accounting = None
    missing = [job for job in jobs if job.id and any((job.name, task) not in found for task in range(job.tasks))]
    if missing:
        try:
            accounted = sacct.ask_accounting(commands, {job.id: job.name for job in missing})
            found = {(task.name, task.task): task for task in accounted} | found
            has_accounting = True
        except SlurmError:
            has_accounting = False
    tasks = []
    for job in jobs:
        for task in remembered(job.name, job.tasks, notes[job.name], is_forgotten=True):
            present = found.get((job.name, task.task))
            tasks.append(task if present is None else amended(present, notes[job.name].get(task.task, ())))
    return Answer(tasks, has_accounting=has_accounting)


def parse(order: str, data: Any) -> SubmittedJobs:
    """Read the submission of an order from JSON.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is none.
    """
    jobs = {
        step: StoredJob(**{name: entry[name] for name in ("name", "id", "tasks") if name in entry})
        for step, entry in data["jobs"].items()
    }
    texts = [data["user"], *(text for entry in jobs.values() for text in (entry.name, entry.id))]
    if not all(isinstance(text, str) for text in texts) or not all(type(entry.tasks) is int for entry in jobs.values()):
        raise TypeError("holds no submission")
    return SubmittedJobs(order, data["user"], jobs)


def check_file(folder: RunFolder, path: Path) -> None:
    """Read a submission's file as `genrun verify` does.

    Raises:
        StoreError: it is damaged, or may not be looked into.
    """
    del folder
    with reading(path):
        parse(path.parent.name, read_json(read_bytes(path)))


def _read(path: Path) -> SubmittedJobs:
    remedy = "Which of its jobs are in the queue is not known. When squeue --me shows none, move that file away."
    try:
        with reading(path, remedy=remedy):
            return parse(path.parent.name, read_json(read_bytes(path)))
    except DamagedFileError:
        submission = _by_scripts(path.parent)
        if submission is None:
            raise
        return submission


def _by_scripts(logs: Path) -> SubmittedJobs | None:
    """Tell what was submitted by its scripts, which hold the jobs' names; None without the items' script."""
    jobs = {}
    for step, script in ((ITEMS, logs / SCRIPT), *((path.parent.name, path) for path in logs.glob(f"*/{SCRIPT}"))):
        try:
            options = dict(_OPTION.findall(read_bytes(script).decode("utf-8")))
        except (OSError, ValueError):
            continue
        if "job-name" in options:
            last = re.fullmatch(r"0-(\d+)(%\d+)?", options.get("array", ""))
            jobs[step] = StoredJob(options["job-name"], tasks=int(last[1]) + 1 if last else 1)
    return SubmittedJobs(logs.name, str(logs.stat().st_uid), jobs) if ITEMS in jobs else None
