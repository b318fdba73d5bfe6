"""Launchers of this machine: one worker process, or ranks under torchrun; a child process that is watched to its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.errors import LaunchError, SubmissionRefusedError, UsageError
from genrun.runner.job.mesh_axes import product
from genrun.runner.launch.machine import check_machine
from genrun.runner.launch.protocol import WORKER, Check, LaunchRequest, State
from genrun.runner.parallel.mesh import ALONE, Mesh
from genrun.runner.store.environment import gpu_names
from genrun.runner.store.files import write_error
from genrun.runner.store.order import Order, log_folder
from genrun.runner.store.processes import is_gone

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder

PATIENCE_S = 45.0
"""Seconds until workers that do not stop are killed: more than the 30 s after which torchrun kills its ranks."""

REMEDY = "Ask for fewer, or set model.device: cpu."

_WITH_SETUP = 'set -e\n{setup}\nexec "$@"\n'


class LocalLauncher(ABC):
    """Starts one child process per launch.

    Args:
        request: what was asked for.
        mesh: the ranks.
    """

    follows = True

    def __init__(self, request: LaunchRequest, mesh: Mesh) -> None:
        self.mesh = mesh
        self._request = request
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @abstractmethod
    def command(self, logs: Path, worker: Sequence[str]) -> list[str]:
        """Return the child's command line, from the folder of its logs and the worker's arguments."""

    def check_machine(self) -> None:
        """Refuse a launch whose weights are not here and cannot be had, or do not fit into this machine.

        Raises:
            UsageError: the message names all that is missing, and what would run here.
        """
        # Workers of another program load what they like, and lines that run before them may say where weights lie.
        if tuple(self._request.program) == WORKER and not self._request.setup:
            check_machine(self._request, self.mesh.ranks)

    def submit(self, folder: RunFolder, order: Order, restart: int) -> str:
        """Start the child; its own output goes to `launch-RESTART.log`, that of ranks to `rank-N.log`.

        Raises:
            LaunchError: it cannot be started.
            StoreError: the log cannot be written.
        """
        logs = log_folder(folder, order.job)
        worker = [*self._request.program, str(folder.path), "--job", order.job, "--restart", str(restart)]
        command = [*self._setup(), *self.command(logs, worker)]
        name = f"{order.job}.{restart}"
        try:
            log = (logs / f"launch-{restart}.log").open("wb")
        except OSError as error:
            raise write_error(logs, error) from error
        with log:
            self._children[name] = self._start(command, log.fileno())
        return name

    def poll(self, folder: RunFolder, job: str) -> State:
        """Return the state of a launch."""
        del folder
        code = self._children[job].poll()
        return State(running=code is None, exit_code=code)

    def cancel(self, folder: RunFolder, job: str) -> None:
        """Ask a child to stop, and kill it when it does not; tell the command that follows another launch to stop."""
        child = self._children.get(job)
        if child is None:
            launcher = Order.load(folder, job).launcher
            if launcher is not None and is_gone(launcher) is False:
                os.kill(launcher.pid, signal.SIGTERM)
            return
        child.terminate()
        try:
            child.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def logs(self, folder: RunFolder, order: Order) -> list[Path]:
        """Return the logs of the ranks, then the launcher's own."""
        logs = log_folder(folder, order.job)
        return [*sorted(logs.glob("rank-*.log")), *sorted(logs.glob("launch-*.log"))]

    def doctor(self) -> list[Check]:
        """Return nothing: whatever starts this command starts workers."""
        return []

    def script(self, folder: RunFolder, order: Order, items: int) -> None:
        """Return None: there is no script."""
        del folder, order, items

    def queue(self, folder: RunFolder) -> None:
        """Return None: there is no queue."""
        del folder

    def at_work(self, folder: RunFolder) -> dict[str, str]:
        """Return nothing: workers of this machine are watched to their end."""
        del folder
        return {}

    def _setup(self) -> list[str]:
        if not self._request.setup:
            return []
        return ["bash", "-c", _WITH_SETUP.format(setup="\n".join(self._request.setup)), "genrun"]

    def _start(self, command: Sequence[str], log: int) -> subprocess.Popen[bytes]:
        threads = str(self._request.threads)
        environ = {**self._request.environ, "OMP_NUM_THREADS": threads, "PYTHONSAFEPATH": "1"}
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
                start_new_session=True,
            )
        except OSError as error:
            raise LaunchError(f"{command[0]}: cannot be started: {error}.") from error


class InlineLauncher(LocalLauncher):
    """Starts one worker process, without torchrun and without a process group.

    One rank evaluates all points of a round, whatever `parallel` says.
    """

    def __init__(self, request: LaunchRequest) -> None:
        super().__init__(request, ALONE)

    def command(self, logs: Path, worker: Sequence[str]) -> list[str]:
        """Return the worker's command line."""
        del logs
        return [sys.executable, *worker]


class TorchrunLauncher(LocalLauncher):
    """Starts ranks under torchrun.

    Raises:
        UsageError: the number of processes is not that of the mesh.
        RefusedError: there are not that many GPUs.
    """

    def __init__(self, request: LaunchRequest) -> None:
        super().__init__(request, mesh_of(request))

    def command(self, logs: Path, worker: Sequence[str]) -> list[str]:
        """Return torchrun's command line."""
        agent = ["--standalone", "--nproc-per-node", str(self.mesh.ranks), "--log-dir", str(logs / "torchrun")]
        return [sys.executable, "-m", "torch.distributed.run", *agent, *worker]


def mesh_of(request: LaunchRequest) -> Mesh:
    """Return the ranks under torchrun: as told, or one per GPU of this machine, or one group where there is no GPU.

    Raises:
        UsageError: the number of processes is not that of the mesh.
        RefusedError: there are GPUs, and not that many.
    """
    gpus = len(gpu_names()) if request.uses_gpus else 0
    mesh = request.mesh_request.mesh(gpus if request.processes == "auto" else request.processes)
    if request.processes not in ("auto", mesh.ranks):
        raise UsageError(
            f"launch.processes: {request.processes} is not {product(mesh.to_dict(), 'parallel.')} = {mesh.ranks}.",
            remedy=f"--set launch.processes={mesh.ranks}, or auto.",
        )
    if 0 < gpus < mesh.ranks:
        field = "parallel" if request.processes == "auto" else "launch.processes"
        raise SubmissionRefusedError(
            field, f"{mesh.ranks} ranks, and this machine has {gpus} GPUs: one rank needs one. {REMEDY}"
        )
    return mesh
