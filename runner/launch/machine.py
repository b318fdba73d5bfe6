"""Checks of what a launch on this machine lacks: weights and a hub to get them from, GPUs, memory, a cluster."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from genrun.registry import UnknownNameError
from genrun.runner.errors import UsageError
from genrun.runner.job.checkpoint import WEIGHTS, cached_folder
from genrun.runner.launch import registry
from genrun.runner.store.environment import gpu_names

if TYPE_CHECKING:
    from genrun.runner.launch.protocol import LaunchRequest

HUB = "https://huggingface.co"
HUB_S = 2.0
"""Seconds that the hub has for an answer: who types a command is told at once."""

GIB = 2**30
RUNS_HERE = "What runs here: genrun submit jobs/demo.yaml, with a small model that comes with genrun."


def check_machine(request: LaunchRequest, ranks: int) -> None:
    """Refuse a launch that cannot come to anything on this machine.

    Args:
        request: what was asked for.
        ranks: how many there are to be.

    Raises:
        UsageError: no model of the job is here or can be had, or its ranks cannot hold it.
    """
    here = [folder for name, revision in request.checkpoints if (folder := _folder(name, revision)) is not None]
    absent = [name for name, revision in request.checkpoints if _folder(name, revision) is None]
    trouble = _hub_trouble(request.environ) if absent else ""
    # One model that is missing does not keep the items of the others from being made.
    if trouble and not here:
        lines = [*(f"weights: {name} is not on this machine" for name in absent), f"hub: {trouble}"]
        remedy = f"Where there is a network: hf download {absent[0]}; or name a folder: --set model.checkpoint=FOLDER."
        raise UsageError(
            _message([*_gpus(request, ranks), *lines, *_cluster(request)]), remedy=f"{remedy}\n  {RUNS_HERE}"
        )
    lines = list(_memory(request, ranks, here))
    if lines:
        raise UsageError(
            _message([*_gpus(request, ranks), *lines, *_cluster(request)]),
            remedy=f"Fewer ranks: --set parallel=auto --set launch=inline. {RUNS_HERE}",
        )


def _message(lines: list[str]) -> str:
    return "".join(["this machine cannot run the job:", *(f"\n    {line}" for line in lines)])


def _folder(name: str, revision: str | None) -> Path | None:
    """Return where the files of a checkpoint are, or None."""
    return Path(name) if Path(name).is_absolute() else cached_folder(name, revision)


def _gpus(request: LaunchRequest, ranks: int) -> Iterator[str]:
    if request.uses_gpus and not gpu_names():
        yield f"GPUs: none here; {ranks} {'rank' if ranks == 1 else 'ranks'} on {os.cpu_count()} processor cores"


def _cluster(request: LaunchRequest) -> Iterator[str]:
    """Yield a line where the job could not be sent to a cluster from here either."""
    from genrun.runner.launch.protocol import LaunchRequest

    try:
        registry.get("slurm")(LaunchRequest(environ=request.environ, uses_gpus=False)).check_machine()
    except (UsageError, UnknownNameError):
        yield "cluster: no Slurm answers here"


def _memory(request: LaunchRequest, ranks: int, here: list[Path]) -> Iterator[str]:
    """Yield a line where the ranks' copies of the weights do not fit into the memory of a machine without GPUs."""
    if request.uses_gpus and gpu_names():
        return
    size = min((_bytes_of(folder) for folder in here), default=0)
    memory = psutil.virtual_memory().total
    if size * ranks > memory:
        yield f"memory: {ranks} x {size / GIB:.1f} GiB of weights, and this machine has {memory / GIB:.1f} GiB"


def _bytes_of(folder: Path) -> int:
    """Return the size of the largest part's weights, the least that a rank holds: text encoders are freed before it."""
    sizes: dict[str, int] = {}
    for file in folder.glob(f"*/*{WEIGHTS}"):
        sizes[file.parent.name] = sizes.get(file.parent.name, 0) + file.stat().st_size
    return max(sizes.values(), default=0)


def _hub_trouble(environ: Mapping[str, str]) -> str:
    """Say why the hub cannot be asked for weights, or "" when it answers."""
    offline = next((name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if environ.get(name, "0") != "0"), None)
    if offline:
        return f"offline, as {offline} says"
    hub = environ.get("HF_ENDPOINT") or HUB
    said = [f"{hub} gave no answer for {HUB_S:g} s"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(hub, method="HEAD"), timeout=HUB_S):
                said[0] = ""
        except urllib.error.HTTPError:
            said[0] = ""
        except (OSError, ValueError) as error:
            said[0] = f"{hub} cannot be reached: {getattr(error, 'reason', error)}"

    # A thread, since looking a name up has a time limit of its own that nobody else may set.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_S)
    return said[0]
