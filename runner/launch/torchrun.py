"""Ranks on this machine under torchrun: data x time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from genrun.runner.errors import UsageError
from genrun.runner.launch.contract import Mesh, Request
from genrun.runner.launch.local import LocalLauncher
from genrun.runner.store.environment import gpu_names


def make(request: Request) -> LocalLauncher:
    """Return the launcher.

    Raises:
        UsageError: the number of processes is not data x time.
    """
    mesh = mesh_of(request)
    return LocalLauncher(request, mesh, partial(_command, mesh))


def mesh_of(request: Request) -> Mesh:
    """Return the ranks: as told, or one per GPU of this machine, or one time group where there is no GPU.

    Raises:
        UsageError: the number of processes is not data x time.
    """
    time = request.time
    if request.data != "auto":
        mesh = Mesh(request.data, time)
    elif request.processes != "auto":
        mesh = Mesh(max(1, request.processes // time), time)
    else:
        mesh = Mesh(max(1, len(gpu_names()) // time), time)
    if request.processes not in ("auto", mesh.ranks):
        raise UsageError(
            f"launch.processes: {request.processes} is not parallel.data x parallel.time "
            f"= {mesh.data} x {mesh.time} = {mesh.ranks}.",
            remedy=f"--set launch.processes={mesh.ranks}, or auto.",
        )
    return mesh


def _command(mesh: Mesh, logs: Path, worker: Sequence[str]) -> list[str]:
    agent = ["--standalone", "--nproc-per-node", str(mesh.ranks), "--log-dir", str(logs / "torchrun")]
    return [sys.executable, "-m", "torch.distributed.run", *agent, *worker]
