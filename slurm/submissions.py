"""What a run folder remembers of its jobs in Slurm's queue, and what has become of them."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from genrun.runner.errors import DamagedFileError
from genrun.runner.launch.order import log_folder
from genrun.runner.store.files import atomic_write
from genrun.runner.store.reading import read_bytes, read_json, reading
from genrun.slurm import jobs as slurm
from genrun.slurm.commands import Commands
from genrun.slurm.jobs import Answer, Job
from genrun.slurm.tasks import Task

if TYPE_CHECKING:
    from pathlib import Path

    from genrun.runner.store.folder import RunFolder

ITEMS = "items"
"""The job that makes items, beside the steps that follow it."""

_OPTION = re.compile(r"^#SBATCH --([a-z-]+)=(.*)$", re.MULTILINE)

FILE = "slurm.json"
SCRIPT = "job.sbatch"


@dataclass(frozen=True)
class Entry:
    """One job as it is stored.

    Attributes:
        name: the job's name in the queue, unique.
        id: its number, or "" while sbatch's answer has not been heard.
        tasks: tasks of its array.
    """

    name: str
    id: str = ""
    tasks: int = 1


@dataclass(frozen=True)
class Submission:
    """The jobs of one launch.

    Attributes:
        order: the launch.
        user: number of the user whose jobs they are.
        jobs: "items", "score", "report" -> the job.
    """

    order: str
    user: str
    jobs: Mapping[str, Entry] = field(default_factory=dict)

    def with_job(self, step: str, entry: Entry) -> Submission:
        """Return the submission with one more job, or a newer state of it."""
        return dataclasses.replace(self, jobs={**self.jobs, step: entry})

    def without_job(self, step: str) -> Submission:
        """Return the submission without one of its jobs."""
        return dataclasses.replace(self, jobs={name: entry for name, entry in self.jobs.items() if name != step})

    def save(self, folder: RunFolder) -> None:
        """Write the submission into the run.

        Raises:
            StoreError: the folder cannot be written.
        """
        data = {"user": self.user, "jobs": {step: dataclasses.asdict(entry) for step, entry in self.jobs.items()}}
        atomic_write(log_folder(folder, self.order) / FILE, json.dumps(data, indent=1).encode())

    def job(self, folder: RunFolder, step: str) -> Job:
        """Return one of the jobs as the Slurm package knows it."""
        entry = self.jobs[step]
        return Job(entry.name, entry.id, entry.tasks, job_folder(folder, self.order, step))


@dataclass(frozen=True)
class Standing:
    """What has become of the jobs of a run.

    Attributes:
        folder: the run.
        submissions: oldest first.
        tasks: every task of every job by the job's name.
        trouble: why slurmctld could not be asked, or "".
    """

    folder: RunFolder
    submissions: Sequence[Submission]
    tasks: Mapping[str, Sequence[Task]]
    trouble: str = ""

    def job_ids(self) -> list[str]:
        """Return the numbers of the arrays, oldest first."""
        found = [(submission.jobs.get(ITEMS), self.tasks_of(submission)) for submission in self.submissions]
        ids = [(entry and entry.id) or next((task.job for task in tasks if task.job), "") for entry, tasks in found]
        return [job for job in ids if job]

    def log(self, submission: Submission, step: str, task: Task) -> Path:
        """Where the batch log of a task lies."""
        return job_folder(self.folder, submission.order, step) / f"task-{task.task}.log"

    def has_ended(self, worker: str) -> bool:
        """Whether the task of a worker, named as in its leases, is over for certain."""
        order, _, rest = worker.partition(".")
        task = rest.partition(".")[0]
        found = [each for each in self.submissions if each.order == order]
        if self.trouble or not found or not task.isdigit():
            return False
        return any(each.task == int(task) and not each.is_live for each in self.tasks_of(found[0]))

    def tasks_of(self, submission: Submission, step: str = ITEMS) -> Sequence[Task]:
        """Return the tasks of one job."""
        return self.tasks.get(submission.jobs[step].name, ()) if step in submission.jobs else ()

    def held(self) -> list[Task]:
        """Return the tasks that Slurm could not start, and holds."""
        return [task for tasks in self.tasks.values() for task in tasks if task.is_held]

    def live(self, *steps: str) -> list[tuple[Submission, str]]:
        """Return the jobs that are not over, each as its submission and step; of all steps unless some are named."""
        return [
            (submission, step)
            for submission in self.submissions
            for step in submission.jobs
            if (not steps or step in steps) and not slurm.is_over(self.tasks_of(submission, step))
        ]


def job_folder(folder: RunFolder, order: str, step: str) -> Path:
    """Where a job's script, logs and notes lie."""
    logs = log_folder(folder, order)
    return logs if step == ITEMS else logs / step


def load(folder: RunFolder) -> list[Submission]:
    """Read every submission of a run, oldest first.

    Raises:
        StoreError: one cannot be read.
    """
    found = [(path, _read(path)) for path in folder.logs.glob(f"*/{FILE}")]
    # The name of an order begins with its launcher and goes on with the time.
    return [submission for _, submission in sorted(found, key=lambda pair: pair[0].parent.name)]


def standing(folder: RunFolder, commands: Commands) -> Standing:
    """Ask what has become of every job of a run: one call of squeue, and where it has forgotten some, one of sacct.

    Raises:
        StoreError: the run cannot be read.
    """
    submissions = load(folder)
    jobs = [submission.job(folder, step) for submission in submissions for step in submission.jobs]
    if not jobs:
        return Standing(folder, submissions, {})
    # A run is submitted by one user; one who joins in with another account is asked for by the first's.
    answer = slurm.poll(commands, ",".join(sorted({submission.user for submission in submissions})), jobs)
    return Standing(folder, submissions, _by_name(answer), answer.trouble)


def _by_name(answer: Answer) -> dict[str, list[Task]]:
    tasks: dict[str, list[Task]] = {}
    for task in answer.tasks:
        tasks.setdefault(task.name, []).append(task)
    return tasks


def parse(order: str, data: Any) -> Submission:
    """Read the submission of an order from JSON.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: it is none.
    """
    jobs = {
        step: Entry(**{name: entry[name] for name in ("name", "id", "tasks") if name in entry})
        for step, entry in data["jobs"].items()
    }
    texts = [data["user"], *(text for entry in jobs.values() for text in (entry.name, entry.id))]
    if not all(isinstance(text, str) for text in texts) or not all(type(entry.tasks) is int for entry in jobs.values()):
        raise TypeError("holds no submission")
    return Submission(order, data["user"], jobs)


def _read(path: Path) -> Submission:
    remedy = "Which of its jobs are in the queue is not known. When squeue --me shows none, move that file away."
    try:
        with reading(path, remedy=remedy):
            return parse(path.parent.name, read_json(read_bytes(path)))
    except DamagedFileError:
        submission = _by_scripts(path.parent)
        if submission is None:
            raise
        return submission


def _by_scripts(logs: Path) -> Submission | None:
    """Tell what was submitted by its scripts, which hold the jobs' names; None without the items' script."""
    jobs = {}
    for step, script in ((ITEMS, logs / SCRIPT), *((path.parent.name, path) for path in logs.glob(f"*/{SCRIPT}"))):
        try:
            options = dict(_OPTION.findall(read_bytes(script).decode("utf-8")))
        except (OSError, ValueError):
            continue
        if "job-name" in options:
            last = re.fullmatch(r"0-(\d+)(%\d+)?", options.get("array", ""))
            jobs[step] = Entry(options["job-name"], tasks=int(last[1]) + 1 if last else 1)
    return Submission(logs.name, str(logs.stat().st_uid), jobs) if ITEMS in jobs else None
