"""Jobs of a run under any launcher: list them, stop them, tell when a launch has ended, and what ended it."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genrun.registry import UnknownNameError
from genrun.runner.errors import LaunchError, RunError, StoreError, UsageError
from genrun.runner.launch import registry
from genrun.runner.launch.protocol import Check, Launcher, LaunchRequest, QueueState
from genrun.runner.store.environment import is_gone
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.order import STOPPED, Order, RankError, log_folder, rank_log


def launchers_of(folder: RunFolder, environ: Mapping[str, str]) -> list[Launcher]:
    """Return a launcher of each kind that has launched a run; a kind that is not installed any more is left out."""
    # The job of an order is "KIND-TIME-DIGITS", and so is the folder of its logs.
    kinds = {path.name.rsplit("-", 2)[0] for path in folder.logs.glob("*") if path.is_dir()}
    found = []
    for kind in sorted(kinds):
        try:
            found.append(registry.get(kind)(LaunchRequest(environ=environ, uses_gpus=False)))
        except UnknownNameError:
            continue
    return found


def queues_of(folder: RunFolder, environ: Mapping[str, str]) -> list[QueueState]:
    """Return the state of a run's jobs in every queue that it was ever in, with one query to each queue.

    Raises:
        StoreError: what was queued cannot be read.
    """
    queues = (launcher.queue(folder) for launcher in launchers_of(folder, environ))
    return [queue for queue in queues if queue is not None and not queue.is_empty]


def cancel_all(folder: RunFolder, environ: Mapping[str, str]) -> Iterator[str]:
    """Stop all jobs of a run that wait or work, and yield their names; finished items are kept.

    Raises:
        LaunchError: a queue gives no answer, or a job cannot be cancelled.
    """
    launchers = launchers_of(folder, environ)
    for launcher in launchers:
        for job in () if (queue := _answering(folder, launcher)) is None else queue.live_jobs:
            launcher.cancel(folder, job)
            yield job
    for order in _followed(folder):
        kind = order.job.rsplit("-", 2)[0]
        registry.get(kind)(LaunchRequest(environ=environ, uses_gpus=False)).cancel(folder, order.job)
        yield order.job


def cancel_tasks(folder: RunFolder, environ: Mapping[str, str], wanted: Sequence[str]) -> Iterator[str]:
    """Stop single tasks of a run's arrays ("3", "1234_3"), and yield their full names.

    Raises:
        UsageError: there is no such task that waits or works, or several arrays have it.
        LaunchError: a queue gives no answer, or a task cannot be cancelled.
    """
    launchers = launchers_of(folder, environ)
    queues = [(launcher, queue) for launcher in launchers if (queue := _answering(folder, launcher)) is not None]
    for text in wanted:
        if not re.fullmatch(r"\d+(_\d+)?", text):
            raise UsageError(f"--task {text}: wanted the number of a task, such as 3 or 1234_3.")
        meant = [(launcher, task) for launcher, queue in queues for task in queue.live_tasks(text)]
        if len(meant) != 1:
            why = "several arrays have it" if meant else "no such task waits or works"
            raise UsageError(f"--task {text}: {why}.", remedy="Tasks are listed by: genrun status --json.")
        launcher, task = meant[0]
        launcher.cancel(folder, task)
        yield task


def is_over(folder: RunFolder, launch: str, environ: Mapping[str, str]) -> bool:
    """Tell whether the workers of a launch have ended, so that its logs no longer grow; queries the queue each time."""
    order = Order.load(folder, launch)
    if order.launcher is not None:
        return is_gone(order.launcher) is not False
    return not any(queue.trouble or queue.live_jobs for queue in queues_of(folder, environ))


def doctor(environ: Mapping[str, str]) -> list[Check]:
    """Check this machine for the needs of every launcher, starting nothing."""
    checks = []
    for name in registry.names():
        checks += registry.get(name)(LaunchRequest(environ=environ, uses_gpus=False)).doctor()
    return checks


def _answering(folder: RunFolder, launcher: Launcher) -> QueueState | None:
    queue = launcher.queue(folder)
    if queue is not None and queue.trouble:
        raise LaunchError(f"{folder.path}: nothing was cancelled: {queue.trouble}")
    return queue


def _followed(folder: RunFolder) -> Iterator[Order]:
    """Yield the launches that a command on this machine follows."""
    for path in folder.logs.glob("*/order.json"):
        order = Order.load(folder, path.parent.name)
        if order.launcher is not None and is_gone(order.launcher) is False:
            yield order


TAIL_LINES = 6
"""Lines of a log in a message: the end of a traceback, and the error."""

_ROOT_CAUSE = re.compile(r"Root Cause.*?rank\s*:\s*(\d+).*?exitcode\s*:\s*(-?\d+)", re.DOTALL)


@dataclass(frozen=True)
class Cause:
    """Cause of a launch that ended early.

    Attributes:
        message: what happened, one line.
        rank: the rank on which it happened first, or None when the launcher itself failed.
        log: where to read on.
        is_store: whether the run folder could not be read or written.
        is_kill: whether a process was killed or stopped from outside, so that starting again may help.
    """

    message: str
    rank: int | None
    log: Path
    is_store: bool = False
    is_kill: bool = False

    def error(self) -> RunError:
        """Return it as an exception, with the end of the log."""
        where = "the launcher" if self.rank is None else f"rank {self.rank}"
        text = f"{where}: {self.message}"
        if self.is_store:
            return StoreError(text)
        tail = "".join(f"\n    {line}" for line in _tail(self.log))
        return LaunchError(f"{text}\n  End of {self.log}:{tail}")


def find(folder: RunFolder, order: Order, restart: int, exit_code: int | None) -> Cause:
    """Find the cause: torchrun's word on a killed rank, a rank's own report, or the child's exit code."""
    own = log_folder(folder, order.job) / f"launch-{restart}.log"
    told = _ROOT_CAUSE.findall(_text(own))
    rank, code = (int(told[-1][0]), int(told[-1][1])) if told else (None, exit_code or 0)
    if code < 0:
        return Cause(explain(code), rank, _log(folder, order, rank, own), is_kill=True)
    reports = [_read(path) for path in log_folder(folder, order.job).glob("rank-*.error.json")]
    if reports:
        return _reported(folder, order, min(reports, key=lambda report: report.time))
    return Cause(explain(code), rank, _log(folder, order, rank, own), is_kill=code == STOPPED)


def forget(folder: RunFolder, order: Order) -> None:
    """Remove the reports of an earlier start of this launch."""
    for report in log_folder(folder, order.job).glob("rank-*.error.json"):
        report.unlink(missing_ok=True)


def explain(exit_code: int) -> str:
    """Say what an exit code of a process means."""
    if exit_code == -signal.SIGKILL:
        return "killed by signal 9 (SIGKILL); the system does that when memory runs out"
    if exit_code < 0:
        return f"killed by signal {-exit_code} ({signal.Signals(-exit_code).name})"
    return f"ended with exit code {exit_code}"


def _reported(folder: RunFolder, order: Order, report: RankError) -> Cause:
    message = report.message if report.is_store else f"{report.kind}: {report.message}"
    return Cause(message, report.rank, rank_log(folder, order.job, report.rank), report.is_store)


def _log(folder: RunFolder, order: Order, rank: int | None, own: Path) -> Path:
    """Return the log of a rank if it wrote one; else the launcher's own if it wrote one; else rank 0's."""
    log = rank_log(folder, order.job, rank or 0)
    return log if log.exists() and (rank is not None or not _text(own)) else own


def _read(path: Path) -> RankError:
    try:
        return RankError(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return RankError(float("inf"), int(path.name.split("-")[1].split(".")[0]), "Error", "see the log", False)


def _tail(path: Path) -> list[str]:
    return _text(path).rstrip().splitlines()[-TAIL_LINES:]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
