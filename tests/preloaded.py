"""Workers of the kind inline, forked from a process that has loaded torch and diffusers: six seconds that a program takes.

Such a worker is a process of its own, with the arguments, environment, folder and log of the program that it stands for.
What else a program is (its imports, its start under torchrun) is for the tests that start programs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from genrun.runner.launch.local import InlineLauncher
from genrun.runner.launch.protocol import WORKER
from genrun.runner.worker.main import main

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "genrun.runner.worker.engine", "diffusers.pipelines.auto_pipeline"])
AT_START = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
"""What torch and tqdm read of the environment when they are imported."""


def fork_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let launches of the kind inline fork their workers while a test runs."""
    monkeypatch.setattr(InlineLauncher, "_start", start)


class Child:
    """A forked worker, as `subprocess.Popen` shows a program."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        self.terminate, self.kill = process.terminate, process.kill

    def poll(self) -> int | None:
        """Return its exit code, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("worker", timeout or 0.0)
        return self._process.exitcode


def start(launcher: InlineLauncher, command: Sequence[str], log: int) -> Any:
    """Start a worker in place of `LocalLauncher._start`."""
    program = [sys.executable, *WORKER]
    assert list(command[: len(program)]) == program, "this is no inline worker"
    request = launcher._request
    environ = {**request.environ, "OMP_NUM_THREADS": str(request.threads), "PYTHONSAFEPATH": "1"}
    arguments = (list(command[len(program) :]), environ, str(Path.cwd()), Path(f"/proc/self/fd/{log}").resolve())
    process = CONTEXT.Process(target=work, args=arguments)
    with patch.dict(os.environ, AT_START):
        process.start()
    return Child(process)


def work(arguments: list[str], environ: Mapping[str, str], folder: str, log: Path) -> None:
    """Be the program."""
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    torch.set_num_threads(int(environ["OMP_NUM_THREADS"]))
    sys.exit(main(arguments))
