"""Ranks on this machine under torchrun."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from genrun.runner.errors import RefusedError, UsageError
from genrun.runner.launch.protocol import Request
from genrun.runner.launch.local import LocalLauncher
from genrun.runner.parallel.mesh import Mesh, product
from genrun.runner.store.environment import gpu_names

REMEDY = "Ask for fewer, or set model.device: cpu."


def make(request: Request) -> LocalLauncher:
    """Return the launcher.

    Raises:
        UsageError: the number of processes is not that of the mesh.
        RefusedError: there are not that many GPUs.
    """
    mesh = mesh_of(request)
    return LocalLauncher(request, mesh, partial(_command, mesh))


def mesh_of(request: Request) -> Mesh:
    """Return the ranks: as told, or one per GPU of this machine, or one group where there is no GPU.

    Raises:
        UsageError: the number of processes is not that of the mesh.
        RefusedError: there are GPUs, and not that many.
    """
    gpus = len(gpu_names()) if request.uses_gpus else 0
    mesh = request.wish.mesh(gpus if request.processes == "auto" else request.processes)
    if request.processes not in ("auto", mesh.ranks):
        raise UsageError(
            f"launch.processes: {request.processes} is not {product(mesh.to_dict(), 'parallel.')} = {mesh.ranks}.",
            remedy=f"--set launch.processes={mesh.ranks}, or auto.",
        )
    if 0 < gpus < mesh.ranks:
        field = "parallel" if request.processes == "auto" else "launch.processes"
        raise RefusedError(field, f"{mesh.ranks} ranks, and this machine has {gpus} GPUs: one rank needs one. {REMEDY}")
    return mesh


def _command(mesh: Mesh, logs: Path, worker: Sequence[str]) -> list[str]:
    agent = ["--standalone", "--nproc-per-node", str(mesh.ranks), "--log-dir", str(logs / "torchrun")]
    return [sys.executable, "-m", "torch.distributed.run", *agent, *worker]
