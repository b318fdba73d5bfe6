"""Workers that are forked from a process that has loaded what they need: seconds of processor that a program takes.

Such a worker is a process of its own, with the arguments, environment, folder and log of the program that it stands for;
ranks meet at a store of the parent's, as under torchrun. What else a program is (its imports, torchrun's way with ranks
that die) is for the tests that start programs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from genrun.runner.launch.local import InlineLauncher, LocalLauncher, TorchrunLauncher
from genrun.runner.launch.protocol import WORKER, LaunchRequest
from genrun.runner.worker.main import main
from tests.fakes import cli
from tests.fakes.worker import run

if TYPE_CHECKING:
    import pytest

# Nothing here imports torch: fake workers do without.
CONTEXT = get_context("forkserver")
LOADED = ("torch", "genrun.runner.worker.engine", "diffusers.pipelines.auto_pipeline")
AT_START = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONPATH": str(cli.ROOT)}
"""What torch, tqdm and Python read of the environment when they are imported, wherever the test is."""
POLL_S = 0.02
MOMENT_S, GRACE_S = 0.5, 10.0
"""What the others of a process that failed have to say so themselves, and then to stop."""


class Children:
    """Forked processes, as `subprocess.Popen` shows a program. One that fails ends the others."""

    def __init__(self, processes: Sequence[ForkServerProcess], store: Any = None) -> None:
        self._processes, self._store = processes, store

    def poll(self) -> int | None:
        """Return 0 when all have ended well, the code of one that has not, or None while they run."""
        codes = [process.exitcode for process in self._processes]
        if failed := next(filter(None, codes), 0):
            self._end()
            return failed
        return None if None in codes else 0

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of all."""
        end = time.monotonic() + (timeout or float("inf"))
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("forked processes", timeout or 0.0)
            time.sleep(POLL_S)
        return code

    def terminate(self) -> None:
        """Send SIGTERM to those that run."""
        for process in self._processes:
            process.terminate()

    def kill(self) -> None:
        """Send SIGKILL to those that run."""
        for process in self._processes:
            process.kill()

    def _end(self) -> None:
        for wait_s, end in ((MOMENT_S, self.terminate), (GRACE_S, self.kill)):
            deadline = time.monotonic() + wait_s
            for process in self._processes:
                process.join(max(0.0, deadline - time.monotonic()))
            end()
        for process in self._processes:
            process.join()


def fork(
    target: Callable[[], int | None],
    environ: Mapping[str, str],
    log: Path,
    ranks: int = 0,
    loaded: Sequence[str] = LOADED,
) -> Children:
    """Start a function in a process with an environment and a log, or in so many ranks that share the log.

    The first call says what the process that all are forked from has loaded.
    """
    CONTEXT.set_forkserver_preload([*loaded])
    store, added = None, [{}]
    if ranks:
        from torch.distributed.elastic.utils.distributed import create_c10d_store

        store = create_c10d_store(is_server=True, server_addr="127.0.0.1", server_port=0, wait_for_workers=False)
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
        sizes = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
        added = [{**meeting, **sizes, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]
    given = [(target, {**environ, **more}, str(Path.cwd()), log) for more in added]
    processes = [CONTEXT.Process(target=_work, args=arguments) for arguments in given]
    with patch.dict(os.environ, AT_START):
        for process in processes:
            process.start()
    return Children(processes, store)


def run_ranks(target: Callable[[], int | None], ranks: int, folder: Path, timeout_s: float = 600) -> tuple[int, str]:
    """Run a function in so many ranks, with $FOUND for a folder; return the exit code, and what they wrote."""
    log = folder / "ranks.log"
    log.touch()
    code = fork(target, {**os.environ, "FOUND": str(folder), "OMP_NUM_THREADS": "1"}, log, ranks).wait(timeout_s)
    return code, log.read_text(errors="replace")


def fork_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let launches of the kinds inline and torchrun fork their workers while a test runs."""
    for launcher in (InlineLauncher, TorchrunLauncher):
        monkeypatch.setattr(launcher, "_start", _start)


def fork_fake_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let launches of the kind inline fork fake workers while a test runs."""
    monkeypatch.setattr(InlineLauncher, "_start", _start_fake)


class Worker:
    """A worker's main function with its arguments."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = arguments

    def __call__(self) -> int:
        """Work."""
        return main(self._arguments)


class FakeWorker:
    """A fake worker's with its."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = arguments

    def __call__(self) -> int:
        """Work."""
        sys.argv = [str(cli.WORKER), *self._arguments]
        return run()


def _start_fake(launcher: LocalLauncher, command: Sequence[str], log: int) -> Any:
    request = launcher._request
    if request.setup:
        return LocalLauncher._start(launcher, command, log)
    work = FakeWorker(command[command.index(str(cli.WORKER)) + 1 :])
    return fork(work, _environ(request), Path(f"/proc/self/fd/{log}").resolve(), loaded=("tests.fakes.worker",))


def _environ(request: LaunchRequest) -> dict[str, str]:
    return {**request.environ, "OMP_NUM_THREADS": str(request.threads), "PYTHONSAFEPATH": "1"}


def _start(launcher: LocalLauncher, command: Sequence[str], log: int) -> Any:
    request = launcher._request
    assert (tuple(request.program), request.setup) == (WORKER, ()), "workers of another program cannot be forked"
    ranks = launcher.mesh.ranks if isinstance(launcher, TorchrunLauncher) else 0
    work = Worker(command[command.index(WORKER[-1]) + 1 :])
    return fork(work, _environ(request), Path(f"/proc/self/fd/{log}").resolve(), ranks)


def _work(target: Callable[[], int | None], environ: Mapping[str, str], folder: str, log: Path) -> None:
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(int(environ["OMP_NUM_THREADS"]))
    sys.exit(target())
