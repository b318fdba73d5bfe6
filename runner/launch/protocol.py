"""What a launcher is: small methods around processes that genrun does not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from genrun.runner.parallel.mesh import Mesh, Wish

if TYPE_CHECKING:
    from genrun.runner.launch.order import Order
    from genrun.runner.store.folder import RunFolder

WORKER = ("-m", "genrun.runner.worker.worker")
"""What Python is to run in a worker process."""


@dataclass(frozen=True)
class Step:
    """A job that follows the items.

    Attributes:
        name: "score" or "report".
        options: #SBATCH options over those of the items' job.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cluster:
    """What a job asks of a cluster's queue.

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
class Request:
    """What a launcher is made from.

    Attributes:
        processes: worker processes, or "auto".
        wish: how they are to be arranged.
        threads: CPU threads of a rank.
        setup: shell lines that run before the workers, in their shell.
        environ: environment of the workers.
        program: Python's arguments for a worker, before the worker's own.
        cluster: what a launcher with a queue needs to know beside that.
        uses_gpus: whether ranks want a GPU each where there are any.
    """

    processes: int | Literal["auto"] = "auto"
    wish: Wish = field(default_factory=Wish)
    threads: int = 1
    setup: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    program: Sequence[str] = WORKER
    cluster: Cluster | None = None
    uses_gpus: bool = True


@dataclass(frozen=True)
class State:
    """What has become of a launch.

    Attributes:
        running: whether it is not over yet.
        exit_code: its exit code; negative for a signal; None while it runs.
        trouble: how its parts ended, or why that is not known; "" when there is nothing to say.
    """

    running: bool
    exit_code: int | None = None
    trouble: str = ""


class Launcher(Protocol):
    """Starts workers for an order, and looks after them."""

    @property
    def mesh(self) -> Mesh:
        """The ranks it will start."""
        ...

    @property
    def follows(self) -> bool:
        """Whether a submission returns when the work is done, rather than when it is queued."""
        ...

    def submit(self, folder: RunFolder, order: Order, restart: int) -> str:
        """Start the workers, and return the launcher's own name for them.

        Raises:
            LaunchError: they cannot be started.
        """
        ...

    def poll(self, job: str) -> State:
        """Return what has become of a launch."""
        ...

    def cancel(self, job: str) -> None:
        """Stop the workers and wait until they have gone; items in work are dropped."""
        ...

    def logs(self, folder: RunFolder, order: Order) -> list[Path]:
        """Return the logs of a launch, the launcher's own last."""
        ...

    def script(self, folder: RunFolder, order: Order, items: int) -> str | None:
        """Return the batch script that would start the workers for so many items; None where there is none.

        Raises:
            LaunchError: it cannot be written.
        """
        ...

    def at_work(self, folder: RunFolder) -> Mapping[str, str]:
        """Return the launches of a run that wait or work unwatched: the order's job -> the launcher's own name.

        Raises:
            LaunchError: that cannot be found out.
        """
        ...
