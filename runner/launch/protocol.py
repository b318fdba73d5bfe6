"""The protocol of launchers: what they are made from, five methods, and what those return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from genrun.runner.parallel.mesh import Mesh, MeshRequest

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.order import Order

WORKER = ("-m", "genrun.runner.worker.main")
"""Arguments of Python in a worker process."""

NOTIFY = "notify"
"""Name of the step that tells a job's command how the work ended."""


@dataclass(frozen=True)
class Step:
    """A job that follows the items.

    Attributes:
        name: "score", "report", or "notify" where the job has a command that is told.
        options: #SBATCH options over those of the items' job.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cluster:
    """Resources that a job asks of a cluster's queue.

    Attributes:
        name: the job's name, for the names of its jobs in the queue.
        partition: where, or None for the cluster's default.
        array: tasks that share the items out among them, or "auto" for as many as can be of use.
        at_once: how many tasks may run at the same time, or None for all.
        nodes: nodes of a task.
        gpus: GPUs of a node, "8" or "h200:8"; "0" for none.
        time: time limit of a task in Slurm's form, or None for the partition's default.
        agent: "torchrun", or "srun" where Slurm starts the ranks itself.
        options: further #SBATCH options.
        template: a template of the batch script in place of ours.
        then: jobs that follow, each after the one before.
        setup: shell lines that run before the workers as they may be stored: secrets as the variables they come from.
        cwd: where the workers run.
    """

    name: str
    partition: str | None = None
    array: int | Literal["auto"] = 1
    at_once: int | None = None
    nodes: int = 1
    gpus: str = "0"
    time: str | None = None
    agent: Literal["torchrun", "srun"] = "torchrun"
    options: Mapping[str, Any] = field(default_factory=dict)
    template: Path | None = None
    then: Sequence[Step] = ()
    setup: Sequence[str] = ()
    cwd: Path = Path()


@dataclass(frozen=True)
class LaunchRequest:
    """Arguments from which a launcher is made.

    Attributes:
        processes: worker processes, or "auto".
        mesh_request: their arrangement, as the job asks for it.
        threads: CPU threads of a rank.
        setup: shell lines that run before the workers, in their shell.
        environ: environment of the workers.
        program: Python's arguments for a worker, before the worker's own.
        cluster: what a launcher with a queue needs to know beside that.
        uses_gpus: whether ranks want a GPU each where there are any.
        checkpoints: (name, revision) of what the workers load: a folder, or a hub id.
    """

    processes: int | Literal["auto"] = "auto"
    mesh_request: MeshRequest = field(default_factory=MeshRequest)
    threads: int = 1
    setup: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    program: Sequence[str] = WORKER
    cluster: Cluster | None = None
    uses_gpus: bool = True
    checkpoints: Sequence[tuple[str, str | None]] = ()


@dataclass(frozen=True)
class State:
    """State of a launch.

    Attributes:
        running: whether it is not over yet.
        exit_code: its exit code; negative for a signal; None while it runs.
        trouble: how its parts ended, or why that is not known; "" when there is nothing to say.
    """

    running: bool
    exit_code: int | None = None
    trouble: str = ""


@dataclass(frozen=True)
class Check:
    """A finding of `doctor` about what a launcher needs.

    Attributes:
        name: what was looked at.
        ok: whether it will do.
        found: what was found.
        fix: what helps, or "".
    """

    name: str
    ok: bool
    found: str
    fix: str = ""


@dataclass(frozen=True)
class TaskGroup:
    """Tasks of one queued job that are in the same state for the same reason.

    Attributes:
        job: the job's number, "?" where it was never heard.
        step: "items", or the step that follows them.
        tasks: how many.
        state: the queue's word for it.
        restarted: how many of them were started again.
        why: why they wait, or how they ended.
        nodes: where they run, or ran last.
        bad_log: a log to read where they ended badly, else None.
    """

    job: str
    step: str
    tasks: int
    state: str
    restarted: int
    why: str
    nodes: str
    bad_log: Path | None = None


class QueueState(Protocol):
    """State of a run's jobs in a launcher's queue, at one moment."""

    @property
    def trouble(self) -> str:
        """The reason why the queue could not be asked, or ""; what is known without it is told all the same."""
        ...

    @property
    def is_empty(self) -> bool:
        """True for a run that was never in the queue."""
        ...

    @property
    def live_jobs(self) -> Sequence[str]:
        """Names of the jobs that wait or work."""
        ...

    def job_ids(self) -> Sequence[str]:
        """Return the names of the jobs that make items, oldest first."""
        ...

    def live_tasks(self, task: str) -> Sequence[str]:
        """Return the full names of the tasks called `task` ("3", "1234_3") that wait or work."""
        ...

    def has_ended(self, worker: str) -> bool:
        """Tell whether the task of a worker, named as in its leases, is over for certain."""
        ...

    def groups(self) -> Sequence[TaskGroup]:
        """Group the tasks by job, state and reason."""
        ...

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """List every task for scripts: job, step, task, state, reason, nodes, restarts."""
        ...


class Launcher(Protocol):
    """Starts workers for an order, and looks after them; made from a `LaunchRequest`, found by name in `registry`."""

    @property
    def mesh(self) -> Mesh:
        """The ranks that a submission starts."""
        ...

    @property
    def follows(self) -> bool:
        """True where a submission is followed until the work is done, False where it is queued and outlives the command."""
        ...

    def check_machine(self) -> None:
        """Refuse a launch that cannot come to anything on this machine; called before anything is written.

        Raises:
            UsageError: something is missing; the message names all of it, and what would run here.
        """
        ...

    def submit(self, folder: RunFolder, order: Order, restart: int) -> str:
        """Start the workers, and return the launcher's own name for them.

        Raises:
            LaunchError: they cannot be started.
        """
        ...

    def poll(self, folder: RunFolder, job: str) -> State:
        """Return the state of a launch."""
        ...

    def cancel(self, folder: RunFolder, job: str) -> None:
        """Stop a launch, or a task of one; items in work are dropped.

        Raises:
            LaunchError: it cannot be stopped.
        """
        ...

    def logs(self, folder: RunFolder, order: Order) -> list[Path]:
        """Return the logs of a launch."""
        ...

    def doctor(self) -> Sequence[Check]:
        """Look at what this launcher needs of the machine, and start nothing."""
        ...

    # What follows has an empty answer where there is no queue.

    def script(self, folder: RunFolder, order: Order, items: int) -> str | None:
        """Return the batch script that would start the workers for so many items.

        Raises:
            LaunchError: it cannot be written.
        """
        ...

    def queue(self, folder: RunFolder) -> QueueState | None:
        """Return the state of all of a run's jobs that this launcher has queued, also by other commands.

        Raises:
            StoreError: what was queued cannot be read.
        """
        ...

    def at_work(self, folder: RunFolder) -> Mapping[str, str]:
        """Return the launches of a run that wait or work unwatched: the order's job -> the launcher's own name.

        Raises:
            LaunchError: that cannot be found out.
        """
        ...
