"""The launcher of Slurm: arrays of tasks in a queue, each with ranks on one node or several."""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.adapters.parallel.support import product
from genrun.runner.errors import LaunchError, SubmissionRefusedError, UsageError
from genrun.runner.launch.protocol import Check, Cluster, LaunchRequest, State
from genrun.runner.parallel.mesh import Mesh
from genrun.runner.store.files import atomic_write
from genrun.runner.store.order import log_folder, open_items
from genrun.slurm import sbatch
from genrun.slurm.commands import Commands, NoSlurmError, SlurmError, UnreachableError
from genrun.slurm.doctor import examine
from genrun.slurm.sbatch import Scripts
from genrun.slurm.submissions import ITEMS, SCRIPT, SlurmQueueState, StoredJob, SubmittedJobs, job_folder, queue_state
from genrun.slurm.tasks import Task, release, tally
from genrun.slurm.template import mistake_in

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.order import Order

POLL_S = 10.0
"""Pause between two questions to the queue, in seconds: slurmctld serves a whole cluster, and tasks take minutes."""

PING_S = 12.0
"""Longer than slurmctld may take to answer by Slurm's own default (MessageTimeout), in seconds."""


def mesh_of(request: LaunchRequest, cluster: Cluster) -> Mesh:
    """Return the ranks of one task: as told, one per GPU, or one group.

    Raises:
        UsageError: they are not those of the mesh, or not the same number on every node.
    """
    asked, gpus = request.mesh_request, int(cluster.gpus.rpartition(":")[2])
    if request.processes != "auto":
        ranks = request.processes
    elif gpus:
        ranks = cluster.nodes * gpus
    elif asked.data != "auto":
        ranks = asked.mesh().ranks
    else:
        ranks = math.lcm(asked.mesh().ranks_per_team, cluster.nodes)
    mesh = asked.mesh(ranks)
    if mesh.ranks != ranks or ranks % cluster.nodes:
        raise UsageError(
            f"launch: {ranks} ranks of a task are not {product(mesh.to_dict(), 'parallel.')}, "
            f"in equal parts on {cluster.nodes} nodes.",
            remedy="Leave launch.processes out, or set launch.gpus, launch.nodes and parallel to fit.",
        )
    return mesh


class SlurmLauncher:
    """Submits arrays, and finds them again by what the run folder remembers.

    Args:
        request: what was asked for.

    Raises:
        UsageError: the ranks of a task are not those of the mesh, or not the same number on every node.
    """

    follows = False

    def __init__(self, request: LaunchRequest) -> None:
        self._cluster = request.cluster or Cluster("genrun")
        self.mesh = mesh_of(request, self._cluster)
        self._scripts = Scripts(request, self._cluster, self.mesh)
        self._commands = Commands(request.environ)
        self._watches: dict[RunFolder, QueueWatch] = {}

    @staticmethod
    def mistake_in(template: Path) -> str:
        """Return what is wrong with a template of the batch script, as far as that shows without a job; or ""."""
        return mistake_in(template)

    def check_machine(self) -> None:
        """Refuse to submit where no cluster answers.

        Raises:
            UsageError: Slurm's commands are not here, or no controller answers them.
        """
        try:
            Commands(self._commands.environ, PING_S).run("scontrol", "ping")
        except SlurmError as error:
            said = str(error).rstrip(".")
            if isinstance(error, NoSlurmError):
                said = "its commands are not on this machine"
            elif re.search(r"config|resolve_ctls", said):
                # Else the user would read how Slurm's libraries looked for a configuration in the domain name system.
                said = "its commands find no configuration (SLURM_CONF)"
            raise UsageError(
                f"launch: slurm: no cluster answers: {said}.",
                remedy="Here: --set launch=torchrun, or --set launch=inline. Else submit on a login node of the cluster.",
            ) from error

    def submit(self, folder: RunFolder, order: Order, restart: int) -> str:
        """Submit the array and the steps that follow it; return the array's job id.

        What is to be submitted is written down before, so that a job whose number was never heard is found by its name.

        Raises:
            RefusedError: Slurm does not take the job.
            LaunchError: Slurm does not answer.
            StoreError: the run folder cannot be written.
        """
        del restart
        count = self._tasks(len(open_items(folder, order)))
        submission = SubmittedJobs(order.job, str(os.getuid()))
        text = self._scripts.items(folder, order, count)
        submission = self._hand_in(folder, submission, ITEMS, text, count)
        job = before = submission.jobs[ITEMS].id
        for step in self._cluster.then:
            text = self._scripts.step(folder, order, step, before)
            try:
                submission = self._hand_in(folder, submission, step.name, text, 1)
            except SubmissionRefusedError:
                sbatch.cancel(self._commands, submission.user, submission.jobs[ITEMS].name, [job])
                raise
            before = submission.jobs[step.name].id
        return job

    def poll(self, folder: RunFolder, job: str) -> State:
        """Return the state of a job; ask the queue only when the last answer is old enough."""
        return self._watch(folder).state(job)

    def cancel(self, folder: RunFolder, job: str) -> None:
        """Cancel a job, or one task of it ("1234_5").

        Raises:
            LaunchError: Slurm does not.
        """
        found, number = queue_state(folder, self._commands), job.partition("_")[0]
        for submission in found.submissions:
            for step, entry in submission.jobs.items():
                if number == entry.id or any(task.job == number for task in found.tasks_of(submission, step)):
                    try:
                        sbatch.cancel(self._commands, submission.user, entry.name, [job])
                    except SlurmError as error:
                        raise LaunchError(f"{job}: not cancelled: {error}") from error

    def logs(self, folder: RunFolder, order: Order) -> list[Path]:
        """Return the logs of all ranks, task by task, each task's batch log before them."""
        return task_logs(log_folder(folder, order.job))

    def doctor(self) -> list[Check]:
        """Look at the commands, the controller, the accounts and the partitions; nothing is submitted."""
        return examine(self._commands)

    def script(self, folder: RunFolder, order: Order, items: int) -> str:
        """Return the batch script for so many items.

        Raises:
            LaunchError: it cannot be written.
        """
        return self._scripts.items(folder, order, self._tasks(items))

    def queue(self, folder: RunFolder) -> SlurmQueueState:
        """Return the state of every job of a run: one call of squeue, and where it has forgotten some, one of sacct."""
        return queue_state(folder, self._commands)

    def at_work(self, folder: RunFolder) -> dict[str, str]:
        """Return the launches of a run whose tasks wait or work: the order's job -> the array's job id.

        Tasks that Slurm holds because it could not start them are let go.

        Raises:
            LaunchError: slurmctld does not answer, so that it is not known.
        """
        found = self._watch(folder).look()
        if found.trouble:
            raise LaunchError(
                f"{folder.path}: has jobs in Slurm's queue, and what has become of them is not known: {found.trouble}",
                remedy="Nothing was submitted. Try again when slurmctld answers; running tasks go on meanwhile.",
            )
        return {submission.order: _note_id(folder, found, submission) for submission, _ in found.live(ITEMS)}

    def _watch(self, folder: RunFolder) -> QueueWatch:
        return self._watches.setdefault(folder, QueueWatch(folder, self._commands, POLL_S))

    def _tasks(self, items: int) -> int:
        """Return how many tasks can be of use, and are allowed."""
        useful = max(1, math.ceil(items / self.mesh.data))
        wanted = useful if self._cluster.array == "auto" else min(useful, self._cluster.array)
        try:
            return min(wanted, sbatch.max_array(self._commands))
        except SlurmError:
            return min(wanted, sbatch.DEFAULT_MAX_ARRAY)

    def _hand_in(self, folder: RunFolder, submission: SubmittedJobs, step: str, text: str, tasks: int) -> SubmittedJobs:
        entry = StoredJob(self._scripts.name(submission.order, step), tasks=tasks)
        submission = submission.with_job(step, entry)
        script = job_folder(folder, submission.order, step) / SCRIPT
        atomic_write(script, text.encode())
        submission.save(folder)
        try:
            job = sbatch.submit(self._commands, script, entry.name, submission.user)
        except NoSlurmError as error:
            submission.without_job(step).save(folder)
            raise LaunchError(f"launch: slurm: {error}") from error
        except UnreachableError as error:
            remedy = "Run the same command again: it looks the job up before it submits another."
            said = f"{script}: whether Slurm has taken it is not known: {error}"
            raise LaunchError(said, remedy=remedy) from error
        except SlurmError as error:
            submission.without_job(step).save(folder)
            raise self._scripts.refused(error, step) from error
        submission = submission.with_job(step, replace(entry, id=job))
        submission.save(folder)
        return submission


@dataclass
class QueueWatch:
    """Polls squeue for all jobs of a run at once, rate-limited, and releases held tasks once.

    Attributes:
        folder: the run.
        commands: Slurm's programs.
        poll_s: answers are kept so long, in seconds.
    """

    folder: RunFolder
    commands: Commands
    poll_s: float
    _asked: float = -math.inf
    _found: SlurmQueueState | None = None
    _released: set[str] = field(default_factory=set)
    _stuck: frozenset[str] = frozenset()

    def look(self) -> SlurmQueueState:
        """Ask the queue now, and let go the tasks that it holds because a node could not start them.

        A task that is held again after that is left alone: its own node may not be the only one that is broken.

        Raises:
            StoreError: the run cannot be read.
        """
        found = queue_state(self.folder, self.commands)
        self._found, self._asked = found, time.monotonic()
        held = {task.id: task for task in found.held()}
        self._stuck = frozenset(held.keys() & self._released)
        new = [task for name, task in held.items() if name not in self._released]
        self._released.update(task.id for task in new)
        if new:
            with contextlib.suppress(SlurmError):
                release(self.commands, new)
        return found

    def state(self, job: str) -> State:
        """Return the state of a job, by the last answer unless that is old."""
        found = self._found
        if found is None or time.monotonic() - self._asked >= self.poll_s:
            found = self.look()
        if found.trouble:
            return State(running=True, trouble=found.trouble)
        tasks = _tasks_of(found, job)
        # Submitted after that answer: the next one will tell.
        if tasks is None or any(task.is_live and task.id not in self._stuck for task in tasks):
            return State(running=True)
        ended = [f"{len(group)} {state}: {why}" for (state, why), group in tally(tasks).items() if state != "COMPLETED"]
        return State(running=False, exit_code=1 if ended else 0, trouble="; ".join(ended))


def task_logs(logs: Path, task: int | None = None) -> list[Path]:
    """Return the logs of a job or of one of its tasks: what the batch script wrote, then those of the ranks."""
    one = "*" if task is None else str(task)
    found = [*logs.glob(f"task-{one}/rank-*.log"), *logs.glob(f"task-{one}.log")]
    return sorted(found, key=lambda path: [int(part) if part.isdigit() else part for part in _parts(path, logs)])


def _parts(path: Path, logs: Path) -> list[str]:
    return re.split(r"(\d+)", path.relative_to(logs).as_posix())


def _tasks_of(found: SlurmQueueState, job: str) -> Sequence[Task] | None:
    """Return the tasks of the job of that number, also when sbatch's answer was never heard; None where there is none."""
    for submission in found.submissions:
        for step, entry in submission.jobs.items():
            tasks = found.tasks_of(submission, step)
            if entry.id == job or any(task.job == job for task in tasks):
                return tasks
    return None


def _note_id(folder: RunFolder, found: SlurmQueueState, submission: SubmittedJobs) -> str:
    """Return the number of a live array, and write it down if sbatch's answer was never heard."""
    entry, job = submission.jobs[ITEMS], found.tasks_of(submission)[0].job
    if not entry.id:
        submission.with_job(ITEMS, replace(entry, id=job)).save(folder)
    return job
