"""Batch scripts of a run's jobs, with the options that reach sbatch; submitting them, never twice, and cancelling them."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.errors import SubmissionRefusedError
from genrun.runner.launch.protocol import Cluster, LaunchRequest, Step
from genrun.runner.parallel.mesh import Mesh
from genrun.runner.store.order import log_folder
from genrun.slurm import tasks
from genrun.slurm.commands import Commands, SlurmError, UnreachableError
from genrun.slurm.submissions import ITEMS, job_folder
from genrun.slurm.tasks import GIVE_UP, TRIES, WARNING_S
from genrun.slurm.template import GENERATION, STEP, Script, ScriptError, log_pattern
from genrun.version import __version__

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.order import Order

STEP_PROGRAM = ("-m", "genrun.slurm.step")

PAUSES_S = (2.0, 10.0, 30.0)
"""Waits before looking up whether a submission without an answer was accepted: for a lost answer, for a restart."""

DEFAULT_MAX_ARRAY = 1001
"""Slurm's own MaxArraySize where the configuration does not say another."""

FIELDS = {
    "partition": "launch.partition",
    "time": "launch.time",
    "array": "launch.array",
    "nodes": "launch.nodes",
    "gpus-per-node": "launch.gpus",
}
"""Keys of a job file that become options of sbatch."""

_NAMED = re.compile(r"option '--([a-z0-9-]+)|--([a-z0-9-]+) specification")
_WORDS = (
    ("partition", r"partition"),
    ("time", r"time limit"),
    ("array", r"job array|array spec"),
    ("account", r"\baccount"),
    ("qos", r"\bqos\b"),
    ("constraint", r"feature"),
    ("reservation", r"reservation"),
    ("licenses", r"license"),
    ("dependency", r"dependency"),
    ("mem", r"memory"),
    ("gpus-per-node", r"gres|gpu|tres"),
    ("nodes", r"node count|more nodes|processors"),
)
_SHAPE = re.compile(r"node configuration is not available", re.IGNORECASE)


@dataclass(frozen=True)
class Scripts:
    """Writes the batch scripts of a launch.

    Attributes:
        request: what was asked of the launcher.
        cluster: what was asked of the queue.
        mesh: the ranks of one task.
    """

    request: LaunchRequest
    cluster: Cluster
    mesh: Mesh

    def name(self, order: str, step: str) -> str:
        """Return the job's name in the queue. No other has it: an order's job ends in the time and eight random digits."""
        name = f"{self.cluster.name}.{order.partition('-')[2]}"
        return name if step == ITEMS else f"{name}.{step}"

    def items(self, folder: RunFolder, order: Order, tasks: int) -> str:
        """Return the script of the array that makes items.

        Raises:
            RefusedError: it cannot be written.
        """
        logs = log_folder(folder, order.job)
        values = {
            **self._values(folder, order),
            "redirect": log_pattern(logs / "x") is None,
            "worker": list(self.request.program),
            "nodes": self.cluster.nodes,
            "ranks_per_node": self.mesh.ranks // self.cluster.nodes,
            "agent": self.cluster.agent,
            "exclude": self.cluster.options.get("exclude") or "",
            "warning_s": WARNING_S,
            "tries": TRIES,
            "give_up": GIVE_UP,
        }
        name = self.name(order.job, ITEMS)
        return _rendered(Script(name, self.options(logs, tasks), values, self.cluster.template), GENERATION)

    def step(self, folder: RunFolder, order: Order, step: Step, before: str) -> str:
        """Return the script of a job that follows the job `before`.

        Raises:
            RefusedError: it cannot be written.
        """
        logs = job_folder(folder, order.job, step.name)
        options = {
            "partition": self.cluster.partition,
            "time": self.cluster.time,
            "gpus-per-node": "1" if self.cluster.gpus != "0" and step.name == "score" else None,
            "cpus-per-task": self.request.threads,
            "requeue": True,
            "open-mode": "append",
            "output": log_pattern(logs / "task-0.log") or "/dev/null",
            **{
                name: value for name, value in self.cluster.options.items() if name in ("account", "qos", "reservation")
            },
            **step.options,
            "dependency": f"afterany:{before}",
        }
        values = {
            **self._values(folder, order),
            "redirect": log_pattern(logs / "x") is None,
            "logs": str(logs),
            "worker": list(STEP_PROGRAM),
            "step": step.name,
        }
        return _rendered(Script(self.name(order.job, step.name), options, values), STEP)

    def options(self, logs: Path, tasks: int) -> Mapping[str, Any]:
        """Return the #SBATCH options of the array, those of the job last; its logs lie in `logs`."""
        by_srun = self.cluster.agent == "srun"
        ranks = self.mesh.ranks // self.cluster.nodes
        limit = f"%{self.cluster.at_once}" if self.cluster.at_once else ""
        return {
            "partition": self.cluster.partition,
            "array": f"0-{tasks - 1}{limit}",
            "nodes": self.cluster.nodes,
            "ntasks-per-node": ranks if by_srun else 1,
            "cpus-per-task": self.request.threads * (1 if by_srun else ranks),
            "gpus-per-node": None if self.cluster.gpus == "0" else self.cluster.gpus,
            "time": self.cluster.time,
            "signal": f"B:USR1@{WARNING_S}",
            "requeue": True,
            "open-mode": "append",
            "output": log_pattern(logs / "task-%a.log") or "/dev/null",
            **self.cluster.options,
        }

    def refused(self, error: SlurmError, step: str) -> SubmissionRefusedError:
        """Return Slurm's refusal of a job as an error that names the field of the job file that is to blame."""
        option = blame(str(error), self.options(Path(), 1))
        for index, each in enumerate(self.cluster.then):
            if each.name == step:
                at = f"launch.then[{index}]"
                return SubmissionRefusedError(f"{at}.options.{option}" if option in each.options else at, str(error))
        named = f"launch.options.{option}" if option in self.cluster.options else "launch.kind"
        return SubmissionRefusedError(FIELDS.get(option, named), str(error))

    def _values(self, folder: RunFolder, order: Order) -> dict[str, Any]:
        return {
            "version": __version__,
            "run": str(folder.path),
            "order": order.job,
            "cwd": str(self.cluster.cwd),
            "python": sys.executable,
            "setup": list(self.cluster.setup),
            "threads": self.request.threads,
        }


def submit(
    commands: Commands, script: Path, name: str, user: str, *, sleep: Callable[[float], None] = time.sleep
) -> str:
    """Hand a script to sbatch, and return the job's number; never twice, also when sbatch gives no answer.

    Args:
        commands: Slurm's programs.
        script: the batch script, whose job has the name `name`.
        name: under which the job is looked up when sbatch gave no answer.
        user: whose job it will be.
        sleep: waits.

    Raises:
        UnreachableError: slurmctld does not answer; whether it took the job is looked up by the next submission.
        SlurmError: it refused the job.
    """
    trouble: UnreachableError | None = None
    for pause in (0.0, *PAUSES_S):
        if trouble is not None:
            sleep(pause)
            if found := look_up(commands, name, user):
                return found
        try:
            return _sbatch(commands, script)
        except UnreachableError as error:
            trouble = error
    raise trouble or UnreachableError("sbatch: gave no answer.")


def look_up(commands: Commands, name: str, user: str) -> str:
    """Return the number of the job of that name, or "" when slurmctld knows none.

    Raises:
        SlurmError: there is no answer.
    """
    return max((task.job for task in tasks.ask_queue(commands, user, [name])), key=int, default="")


def cancel(commands: Commands, user: str, name: str, ids: Sequence[str]) -> None:
    """Cancel a job, or some of its tasks ("123_4"); nothing of another name, should a number be used again.

    Raises:
        SlurmError: scancel failed.
    """
    commands.run("scancel", f"--user={user}", f"--name={name}", *ids)


def max_array(commands: Commands) -> int:
    """Return how many tasks an array may have (MaxArraySize caps the largest index, so that 0 .. size - 1 fit).

    Raises:
        SlurmError: there is no answer.
    """
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", commands.run("scontrol", "show", "config"), re.MULTILINE)
    return int(match[1]) if match else DEFAULT_MAX_ARRAY


def blame(message: str, given: Container[str]) -> str:
    """Return the option that Slurm's message is about, or "" when it cannot be told.

    Args:
        message: of a failed sbatch.
        given: the options of the job.
    """
    named = _NAMED.search(message)
    if named:
        return named[1] or named[2]
    for option, words in _WORDS:
        if re.search(words, message, re.IGNORECASE):
            return option
    if _SHAPE.search(message):
        return next((option for option in ("gpus-per-node", "mem", "cpus-per-task", "nodes") if option in given), "")
    return ""


def _sbatch(commands: Commands, script: Path) -> str:
    output = commands.run("sbatch", "--parsable", str(script), cwd=script.parent)
    job = output.strip().splitlines()[-1].partition(";")[0] if output.strip() else ""
    if not job.isdigit():
        raise UnreachableError(f"sbatch: answered {output.strip()!r}, which is no job number.")
    return job


def _rendered(script: Script, ours: str) -> str:
    try:
        return script.render(ours)
    except ScriptError as error:
        field_ = f"launch.options.{error.option}" if error.option else "launch.template"
        raise SubmissionRefusedError(field_, str(error)) from error
