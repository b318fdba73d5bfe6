"""Arrays of tasks in Slurm's queue, each with ranks on one node or several."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun import __version__
from genrun.runner.errors import LaunchError, RefusedError, UsageError
from genrun.runner.launch.protocol import Cluster, Request, State, Step
from genrun.slurm.lookout import Lookout
from genrun.runner.launch.order import log_folder, open_items
from genrun.slurm.submissions import ITEMS, SCRIPT, Entry, Standing, Submission, job_folder, standing
from genrun.runner.parallel.mesh import Mesh, product
from genrun.runner.store.files import atomic_write
from genrun.slurm import jobs as slurm
from genrun.slurm.commands import Commands, NoSlurmError, SlurmError, UnreachableError
from genrun.slurm.refusals import blame
from genrun.slurm.template import GENERATION, STEP, Script, ScriptError, log_pattern

if TYPE_CHECKING:
    from genrun.runner.launch.order import Order
    from genrun.runner.store.folder import RunFolder

WARNING_S = 60
"""How long before a task's time is up it is warned, to drop its items and be queued again."""

TRIES = 4
"""Failures of a task's workers after which it is not started again: two on one node, and two elsewhere."""

GIVE_UP = 2
"""Failures of a rank's first items after which the rank takes its node for broken."""

POLL_S = 10.0
STEP_PROGRAM = ("-m", "genrun.slurm.step")

FIELDS = {
    "partition": "launch.partition",
    "time": "launch.time",
    "array": "launch.array",
    "nodes": "launch.nodes",
    "gpus-per-node": "launch.gpus",
}
"""Keys of a job file that become options of sbatch."""


def make(request: Request) -> SlurmLauncher:
    """Return the launcher.

    Raises:
        UsageError: the ranks of a task are not data x time, or not the same number on every node.
    """
    cluster = request.cluster or Cluster("genrun")
    return SlurmLauncher(request, cluster, mesh_of(request, cluster), Commands(request.environ))


def mesh_of(request: Request, cluster: Cluster) -> Mesh:
    """Return the ranks of one task: as told, one per GPU, or one group.

    Raises:
        UsageError: they are not those of the mesh, or not the same number on every node.
    """
    wish, gpus = request.wish, int(cluster.gpus.rpartition(":")[2])
    if request.processes != "auto":
        ranks = request.processes
    elif gpus:
        ranks = cluster.nodes * gpus
    elif wish.data != "auto":
        ranks = wish.mesh().ranks
    else:
        ranks = math.lcm(wish.mesh().team, cluster.nodes)
    mesh = wish.mesh(ranks)
    if mesh.ranks != ranks or ranks % cluster.nodes:
        raise UsageError(
            f"launch: {ranks} ranks of a task are not {product(mesh.to_dict(), 'parallel.')}, "
            f"in equal parts on {cluster.nodes} nodes.",
            remedy="Leave launch.processes out, or set launch.gpus, launch.nodes and parallel to fit.",
        )
    return mesh


@dataclass(frozen=True)
class SlurmLauncher:
    """Submits arrays, and finds them again by what the run folder remembers.

    Attributes:
        request: what was asked for.
        cluster: what was asked of the queue.
        mesh: the ranks of one task.
        commands: Slurm's programs.
        poll_s: the queue is asked no more often, in seconds.
    """

    request: Request
    cluster: Cluster
    mesh: Mesh
    commands: Commands
    poll_s: float = POLL_S
    follows: bool = False
    _folders: dict[str, RunFolder] = field(default_factory=dict)
    _lookouts: dict[RunFolder, Lookout] = field(default_factory=dict)

    def submit(self, folder: RunFolder, order: Order, restart: int) -> str:
        """Submit the array and the steps that follow it; returns the array's job id.

        What is to be submitted is written down before, so that a job whose number was never heard is found by its name.

        Raises:
            RefusedError: Slurm does not take the job.
            LaunchError: Slurm does not answer.
            StoreError: the run folder cannot be written.
        """
        del restart
        count = self._tasks(len(open_items(folder, order)))
        submission = Submission(order.job, str(os.getuid()))
        text = self._script(folder, order, count)
        submission = self._hand_in(folder, submission, ITEMS, text, count)
        job = before = submission.jobs[ITEMS].id
        self._folders[job] = folder
        for step in self.cluster.then:
            text = self._step_script(folder, order, step, before)
            try:
                submission = self._hand_in(folder, submission, step.name, text, 1)
            except RefusedError:
                slurm.cancel(self.commands, submission.user, submission.jobs[ITEMS].name, [job])
                raise
            before = submission.jobs[step.name].id
        return job

    def poll(self, job: str) -> State:
        """Return what has become of a job; asks the queue only when the last answer is old enough."""
        return self._lookout(self._folders[job]).state(job)

    def cancel(self, job: str) -> None:
        """Cancel a job and the steps that wait for it."""
        for submission in standing(self._folders[job], self.commands).submissions:
            if any(entry.id == job for entry in submission.jobs.values()):
                for entry in submission.jobs.values():
                    slurm.cancel(self.commands, submission.user, entry.name, [entry.id])

    def logs(self, folder: RunFolder, order: Order) -> list[Path]:
        """Return the logs of all ranks, task by task, each task's batch log after them."""
        return slurm.logs(slurm.Job("", "", 0, log_folder(folder, order.job)))

    def script(self, folder: RunFolder, order: Order, items: int) -> str:
        """Return the batch script for so many items.

        Raises:
            LaunchError: it cannot be written.
        """
        return self._script(folder, order, self._tasks(items))

    def at_work(self, folder: RunFolder) -> dict[str, str]:
        """Return the launches of a run whose tasks wait or work: the order's job -> the array's job id.

        Tasks that Slurm holds because it could not start them are let go.

        Raises:
            LaunchError: slurmctld does not answer, so that it is not known.
        """
        found = self._lookout(folder).look()
        if found.trouble:
            raise LaunchError(
                f"{folder.path}: has jobs in Slurm's queue, and what has become of them is not known: {found.trouble}",
                remedy="Nothing was submitted. Try again when slurmctld answers; running tasks go on meanwhile.",
            )
        live = {submission.order: _note_id(folder, found, submission) for submission, _ in found.live(ITEMS)}
        self._folders.update(dict.fromkeys(live.values(), folder))
        return live

    def _lookout(self, folder: RunFolder) -> Lookout:
        return self._lookouts.setdefault(folder, Lookout(folder, self.commands, self.poll_s))

    def _tasks(self, items: int) -> int:
        """How many tasks can be of use, and are allowed."""
        useful = max(1, math.ceil(items / self.mesh.data))
        wanted = useful if self.cluster.array == "auto" else min(useful, self.cluster.array)
        try:
            return min(wanted, slurm.max_array(self.commands))
        except SlurmError:
            return min(wanted, slurm.DEFAULT_MAX_ARRAY)

    def _hand_in(self, folder: RunFolder, submission: Submission, step: str, text: str, tasks: int) -> Submission:
        entry = Entry(_name(self.cluster, submission.order, step), tasks=tasks)
        submission = submission.with_job(step, entry)
        script = job_folder(folder, submission.order, step) / SCRIPT
        atomic_write(script, text.encode())
        submission.save(folder)
        try:
            job = slurm.submit(self.commands, script, entry.name, submission.user)
        except SlurmError as error:
            if not isinstance(error, UnreachableError):
                submission.without_job(step).save(folder)
            raise self._told(error, script, step) from error
        submission = submission.with_job(step, replace(entry, id=job))
        submission.save(folder)
        return submission

    def _told(self, error: SlurmError, script: Path, step: str) -> LaunchError:
        if isinstance(error, NoSlurmError):
            return LaunchError(f"launch: slurm: {error}")
        if isinstance(error, UnreachableError):
            remedy = "Run the same command again: it looks the job up before it submits another."
            return LaunchError(f"{script}: whether Slurm has taken it is not known: {error}", remedy=remedy)
        option = blame(str(error), self._options(Path(), 1))
        for index, each in enumerate(self.cluster.then):
            if each.name == step:
                at = f"launch.then[{index}]"
                return RefusedError(f"{at}.options.{option}" if option in each.options else at, str(error))
        named = f"launch.options.{option}" if option in self.cluster.options else "launch.kind"
        return RefusedError(FIELDS.get(option, named), str(error))

    def _script(self, folder: RunFolder, order: Order, tasks: int) -> str:
        logs = log_folder(folder, order.job)
        values = {
            **self._values(folder, order),
            "redirect": log_pattern(logs / "x") is None,
            "worker": list(self.request.program),
            "nodes": self.cluster.nodes,
            "ranks_per_node": self.mesh.ranks // self.cluster.nodes,
            "agent": self.cluster.agent,
            "exclude": self.cluster.options.get("exclude") or "",
            "warning_s": WARNING_S,
            "tries": TRIES,
            "give_up": GIVE_UP,
        }
        name = _name(self.cluster, order.job, ITEMS)
        return _rendered(Script(name, self._options(logs, tasks), values, self.cluster.template), GENERATION)

    def _step_script(self, folder: RunFolder, order: Order, step: Step, before: str) -> str:
        logs = job_folder(folder, order.job, step.name)
        options = {
            "partition": self.cluster.partition,
            "time": self.cluster.time,
            "gpus-per-node": "1" if self.cluster.gpus != "0" and step.name == "score" else None,
            "cpus-per-task": self.request.threads,
            "requeue": True,
            "open-mode": "append",
            "output": log_pattern(logs / "task-0.log") or "/dev/null",
            **{
                name: value for name, value in self.cluster.options.items() if name in ("account", "qos", "reservation")
            },
            **step.options,
            "dependency": f"afterany:{before}",
        }
        values = {
            **self._values(folder, order),
            "redirect": log_pattern(logs / "x") is None,
            "logs": str(logs),
            "worker": list(STEP_PROGRAM),
            "step": step.name,
        }
        return _rendered(Script(_name(self.cluster, order.job, step.name), options, values), STEP)

    def _values(self, folder: RunFolder, order: Order) -> dict[str, Any]:
        return {
            "version": __version__,
            "run": str(folder.path),
            "order": order.job,
            "cwd": str(self.cluster.cwd),
            "python": sys.executable,
            "setup": list(self.cluster.setup),
            "threads": self.request.threads,
        }

    def _options(self, logs: Path, tasks: int) -> Mapping[str, Any]:
        by_srun = self.cluster.agent == "srun"
        ranks = self.mesh.ranks // self.cluster.nodes
        limit = f"%{self.cluster.at_once}" if self.cluster.at_once else ""
        return {
            "partition": self.cluster.partition,
            "array": f"0-{tasks - 1}{limit}",
            "nodes": self.cluster.nodes,
            "ntasks-per-node": ranks if by_srun else 1,
            "cpus-per-task": self.request.threads * (1 if by_srun else ranks),
            "gpus-per-node": None if self.cluster.gpus == "0" else self.cluster.gpus,
            "time": self.cluster.time,
            "signal": f"B:USR1@{WARNING_S}",
            "requeue": True,
            "open-mode": "append",
            "output": log_pattern(logs / "task-%a.log") or "/dev/null",
            **self.cluster.options,
        }


def _name(cluster: Cluster, order: str, step: str) -> str:
    """The job's name in the queue: no other job has it, since an order's job ends in the time and eight random digits."""
    name = f"{cluster.name}.{order.partition('-')[2]}"
    return name if step == ITEMS else f"{name}.{step}"


def _note_id(folder: RunFolder, found: Standing, submission: Submission) -> str:
    """Return the number of a live array, and write it down if sbatch's answer was never heard."""
    entry, job = submission.jobs[ITEMS], found.tasks_of(submission)[0].job
    if not entry.id:
        submission.with_job(ITEMS, replace(entry, id=job)).save(folder)
    return job


def _rendered(script: Script, ours: str) -> str:
    try:
        return script.render(ours)
    except ScriptError as error:
        field_ = f"launch.options.{error.option}" if error.option else "launch.template"
        raise RefusedError(field_, str(error)) from error
