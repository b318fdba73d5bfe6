"""What a launcher is: five small methods around processes that genrun does not know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.work.order import Order

WORKER = ("-m", "genrun.runner.work.worker")
"""What Python is to run in a worker process."""


@dataclass(frozen=True)
class Request:
    """What a launcher is made from.

    Attributes:
        processes: worker processes, or "auto".
        data: groups of ranks that make items side by side, or "auto".
        time: ranks of a group.
        threads: CPU threads of a rank.
        setup: shell lines that run before the workers, in their shell.
        environ: environment of the workers.
        program: Python's arguments for a worker, before the worker's own.
    """

    processes: int | Literal["auto"] = "auto"
    data: int | Literal["auto"] = "auto"
    time: int = 1
    threads: int = 1
    setup: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    program: Sequence[str] = WORKER


@dataclass(frozen=True)
class Mesh:
    """How many ranks there are: data x time."""

    data: int
    time: int

    @property
    def ranks(self) -> int:
        """All ranks."""
        return self.data * self.time


@dataclass(frozen=True)
class State:
    """What has become of a launch.

    Attributes:
        running: whether it is not over yet.
        exit_code: its exit code; negative for a signal; None while it runs.
    """

    running: bool
    exit_code: int | None = None


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
