"""One worker process on this machine: no torchrun, no process group."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from genrun.runner.launch.protocol import Request
from genrun.runner.launch.local import LocalLauncher
from genrun.runner.parallel.mesh import Mesh


def make(request: Request) -> LocalLauncher:
    """Return the launcher. One rank evaluates all points of a round, whatever `parallel` says."""
    return LocalLauncher(request, Mesh(1, 1), _command)


def _command(logs: Path, worker: Sequence[str]) -> list[str]:
    del logs
    return [sys.executable, *worker]
