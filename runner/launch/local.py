"""Workers on this machine, and checks of what it lacks: weights and a hub to get them from, GPUs, memory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from genrun.adapters.parallel.support import product
from genrun.registry import UnknownNameError
from genrun.runner.errors import LaunchError, SubmissionRefusedError, UsageError
from genrun.runner.job.checkpoint import WEIGHTS, cached_folder
from genrun.runner.launch import registry
from genrun.runner.launch.protocol import WORKER, Check, LaunchRequest, State
from genrun.runner.parallel.mesh import ALONE, Mesh
from genrun.runner.store.environment import gpu_names, is_gone
from genrun.runner.store.files import write_error
from genrun.runner.store.order import Order, log_folder

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder


PATIENCE_S = 45.0
"""Seconds until workers that do not stop are killed: more than the 30 s after which torchrun kills its ranks."""

REMEDY = "Ask for fewer, or set model.device: cpu."

_OF_A_RANK = re.compile(
    r"((LOCAL_|GROUP_|ROLE_|NODE_)?RANK|(LOCAL_|GROUP_|ROLE_)?WORLD_SIZE|MASTER_(ADDR|PORT)|(PET|TORCHELASTIC)_\w+)"
)
"""Variables of a rank, or of torchrun: containers and shells of schedulers have those of a launch that is not this one."""

_WITH_SETUP = 'set -e\n{setup}\nexec "$@"\n'


def without_rank(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for workers of a launch of their own: without the variables of another launch's rank."""
    return {name: value for name, value in environ.items() if not _OF_A_RANK.fullmatch(name)}


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
        environ = {**without_rank(self._request.environ), "OMP_NUM_THREADS": threads, "PYTHONSAFEPATH": "1"}
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
