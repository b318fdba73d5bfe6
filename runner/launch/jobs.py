"""Jobs of a run under any launcher: list those that wait or work, stop them, and tell when a launch has ended."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from genrun.registry import UnknownNameError
from genrun.runner.errors import LaunchError, UsageError
from genrun.runner.launch import registry
from genrun.runner.launch.protocol import Check, Launcher, LaunchRequest, QueueState
from genrun.runner.store.order import Order
from genrun.runner.store.processes import is_gone

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder


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
