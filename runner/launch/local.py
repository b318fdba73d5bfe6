"""Worker processes on this machine, under one child process that is watched to its end."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.errors import LaunchError
from genrun.runner.launch.protocol import Request, State
from genrun.runner.launch.order import Order, log_folder
from genrun.runner.parallel.mesh import Mesh
from genrun.runner.store.files import write_error

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder

PATIENCE_S = 45.0
"""More than torchrun takes to kill ranks that do not stop by themselves."""

_WITH_SETUP = 'set -e\n{setup}\nexec "$@"\n'


@dataclass(frozen=True)
class LocalLauncher:
    """Starts one child process per launch.

    Attributes:
        request: what was asked for.
        mesh: the ranks.
        command: the child's command line, from the folder of its logs and the worker's arguments.
    """

    request: Request
    mesh: Mesh
    command: Callable[[Path, Sequence[str]], Sequence[str]]
    follows: bool = True
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def submit(self, folder: RunFolder, order: Order, restart: int) -> str:
        """Start the child; its own output goes to `launch-RESTART.log`, that of ranks to `rank-N.log`.

        Raises:
            LaunchError: it cannot be started.
            StoreError: the log cannot be written.
        """
        logs = log_folder(folder, order.job)
        worker = [*self.request.program, str(folder.path), "--job", order.job, "--restart", str(restart)]
        command = [*self._setup(), *self.command(logs, worker)]
        name = f"{order.job}.{restart}"
        try:
            log = (logs / f"launch-{restart}.log").open("wb")
        except OSError as error:
            raise write_error(logs, error) from error
        with log:
            self._children[name] = self._start(command, log.fileno())
        return name

    def poll(self, job: str) -> State:
        """Return what has become of a launch."""
        code = self._children[job].poll()
        return State(running=code is None, exit_code=code)

    def cancel(self, job: str) -> None:
        """Ask the child to stop, and kill it when it does not."""
        child = self._children[job]
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

    def script(self, folder: RunFolder, order: Order, items: int) -> None:
        """Return None: there is no script."""
        del folder, order, items

    def at_work(self, folder: RunFolder) -> dict[str, str]:
        """Return nothing: workers of this machine are watched to their end."""
        del folder
        return {}

    def _setup(self) -> list[str]:
        if not self.request.setup:
            return []
        return ["bash", "-c", _WITH_SETUP.format(setup="\n".join(self.request.setup)), "genrun"]

    def _start(self, command: Sequence[str], log: int) -> subprocess.Popen[bytes]:
        threads = str(self.request.threads)
        environ = {**self.request.environ, "OMP_NUM_THREADS": threads, "PYTHONSAFEPATH": "1"}
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
