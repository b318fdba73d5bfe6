"""`genrun cancel`."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import put, say
from genrun.runner.cli.runs import find_item, run_argument
from genrun.runner.errors import LaunchError, UsageError

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder
    from genrun.slurm.commands import Commands
    from genrun.slurm.submissions import QueueState as Standing


@click.command(
    cls=Verb,
    examples=("genrun cancel", "genrun cancel array --task 3 --task 1234_5", "genrun cancel array --item 3f9c"),
)
@run_argument
@click.option("--task", "tasks", multiple=True, metavar="N", help="Only this task of the array: 3, or 1234_3.")
@click.option("--item", "items", multiple=True, metavar="ID", help="Only this item (the first digits do).")
def cancel(run: str | None, base: Path, tasks: tuple[str, ...], items: tuple[str, ...]) -> None:
    """Stop the work on a run, on one of its tasks, or on one item.

    Without an option, everything of the run that waits or works. Finished items are kept, those in work are dropped;
    the same submission again goes on with them. An item that is cancelled counts as failed; genrun retry makes it.
    """
    from genrun.runner.store.runs import resolve
    from genrun.slurm.commands import Commands

    folder = resolve(run, base)
    for text in items:
        _cancel_item(folder, find_item(folder.items(), text).id)
    if tasks:
        _cancel_tasks(folder, Commands(os.environ), tasks)
    elif not items:
        _cancel_all(folder, Commands(os.environ))


def _cancel_item(folder: RunFolder, item_id: str) -> None:
    """Leave a record that says so; whoever is making the item looks for it every second."""
    from genrun.runner.store.records import Record
    from genrun.runner.worker.failures import CancelledError, describe

    present = folder.record(item_id, check_files=True)
    error = describe(CancelledError(), rank=0, log="")
    record = Record(item_id, "failed", 1 if present is None else present.attempt + 1, error=error)
    if folder.write_record(record):
        put(item_id)
    else:
        say(f"{item_id}: is done already, and kept.")


def _cancel_all(folder: RunFolder, commands: Commands) -> None:
    found = _standing(folder, commands)
    live = found.live()
    for submission, step in live:
        job = found.tasks_of(submission, step)[0].job
        _ask(commands, submission.user, submission.jobs[step].name, [job])
        put(job)
    stopped = _stop_local(folder)
    if not live and not stopped:
        say(f"{folder.path}: nothing of it waits or works.")


def _cancel_tasks(folder: RunFolder, commands: Commands, wanted: tuple[str, ...]) -> None:
    from genrun.slurm.submissions import ITEMS

    found = _standing(folder, commands)
    live = [(submission, task) for submission, _ in found.live(ITEMS) for task in found.tasks_of(submission)]
    for text in wanted:
        if not re.fullmatch(r"\d+(_\d+)?", text):
            raise UsageError(f"--task {text}: wanted the number of a task, such as 3 or 1234_3.")
        meant = [(submission, task) for submission, task in live if text in (task.id, str(task.task)) and task.is_live]
        if len(meant) != 1:
            why = "several arrays have it" if meant else "no such task waits or works"
            raise UsageError(f"--task {text}: {why}.", remedy="Tasks are listed by: genrun status --json.")
        submission, task = meant[0]
        _ask(commands, submission.user, task.name, [task.id])
        put(task.id)


def _standing(folder: RunFolder, commands: Commands) -> Standing:

    from genrun.slurm.submissions import queue_state

    found = queue_state(folder, commands)
    if found.trouble:
        raise LaunchError(f"{folder.path}: nothing was cancelled: {found.trouble}")
    return found


def _ask(commands: Commands, user: str, name: str, ids: list[str]) -> None:
    from genrun.slurm import sbatch as slurm
    from genrun.slurm.commands import SlurmError

    try:
        slurm.cancel(commands, user, name, ids)
    except SlurmError as error:
        raise LaunchError(f"{', '.join(ids)}: not cancelled: {error}") from error


def _stop_local(folder: RunFolder) -> bool:
    """Tell launchers of this machine to stop, as Ctrl-C does; whether there were any."""
    from genrun.runner.store.order import Order
    from genrun.runner.store.processes import is_gone

    stopped = False
    for path in folder.logs.glob("*/order.json"):
        launcher = Order.load(folder, path.parent.name).launcher
        if launcher is not None and is_gone(launcher) is False:
            os.kill(launcher.pid, signal.SIGTERM)
            put(path.parent.name)
            stopped = True
    return stopped
