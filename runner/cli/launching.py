"""What submit and retry have in common: start workers, show how far they are, end with the right exit code."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.output import on_terminal, one_line, put, put_json, say
from genrun.runner.cli.runs import counts, notes_json
from genrun.runner.errors import UsageError
from genrun.runner.notes import group_notes
from genrun.runner.store.order import Order, open_items

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.job.schema import JobSpec
    from genrun.runner.launch.protocol import Launcher
    from genrun.runner.progress import Display, Watcher
    from genrun.runner.store.folder import RunFolder

SHOWN_REASONS = 3
MESSAGE_WIDTH = 400


def make_launcher(spec: JobSpec, document: Mapping[str, Any], items: Sequence[WorkItem] = ()) -> Launcher:
    """Return the launcher a job asks for.

    Args:
        spec: the job.
        document: the same as it is stored.
        items: its plan.

    Raises:
        UsageError: there is no such launcher, or it cannot start that many ranks.
    """
    from genrun.registry import UnknownNameError
    from genrun.runner.launch import registry
    from genrun.runner.submit.launch_order import request_of

    try:
        make = registry.get(spec.launch.kind)
    except UnknownNameError as error:
        raise UsageError(f"launch.kind: {error}") from error
    return make(request_of(spec, document, os.environ, items))


@dataclass(frozen=True)
class Wishes:
    """How a launch is to go.

    Attributes:
        items: ids of the items to make, or None for all that are missing or failed.
        wait: whether to return only when the work is done, also where a launcher queues it.
        join: whether to start more workers beside those that are at work.
        as_json: whether to print JSON.
    """

    items: Sequence[str] | None = None
    wait: bool = True
    join: bool = False
    as_json: bool = False


def launch(
    folder: RunFolder,
    spec: JobSpec,
    launcher: Launcher,
    wishes: Wishes,
    locks: contextlib.ExitStack | None = None,
    extra: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Run the missing items of a run, print the run's folder (or JSON), and end the command.

    Args:
        folder: the run.
        spec: its job.
        launcher: what starts workers.
        wishes: how it is to go.
        locks: what this command holds; let go once the workers are there for others to see.
        extra: more numbers for scripts.

    Raises:
        RunError: the workers could not go on.
        IncompleteError: items are left.
        click.exceptions.Exit: with code 1, items failed.
    """
    from genrun.runner.submit.lock import of_run

    with locks or contextlib.ExitStack() as held:
        held.enter_context(of_run(folder, say))
        at_work = _enter(folder, launcher)
        jobs = list(at_work.values())
        try:
            _work(folder, spec, launcher, wishes, at_work, jobs, held)
        finally:
            _conclude(folder, jobs, wishes.as_json, extra)
    is_queued = bool(jobs) and not wishes.wait
    if not is_queued:
        for notes in group_notes(folder.records().values()):
            say(str(notes))
    failed = folder.tally().failed
    if failed and not is_queued:
        _say_why(folder)
        say(f"{failed} items failed. More: genrun status. Again: genrun retry.")
        raise click.exceptions.Exit(1)


def is_at_work(folder: RunFolder) -> bool:
    """Whether a worker holds an item of a run, or a job of it waits or works in a queue."""
    from genrun.runner.submit.active import at_work
    from genrun.slurm.commands import Commands

    if at_work(folder):
        return True
    from genrun.slurm.submissions import queue_state

    found = queue_state(folder, Commands(os.environ))
    # While the queue gives no answer, a run that was ever in it may still be.
    return bool(found.live() or (found.trouble and found.submissions))


def _say_why(folder: RunFolder) -> None:
    """Say what items failed of, each reason once, the most frequent first."""
    errors = [
        record.error
        for record in folder.records(check_files=True).values()
        if record.status == "failed" and record.error
    ]
    reasons = Counter(tuple(str(error.get(key) or "") for key in ("kind", "message", "remedy")) for error in errors)
    for (kind, message, remedy), count in reasons.most_common(SHOWN_REASONS):
        say(f"{count} failed: {kind}: {one_line(message, MESSAGE_WIDTH)}\n  {remedy}")
    if len(reasons) > SHOWN_REASONS:
        say(f"... and {len(reasons) - SHOWN_REASONS} more kinds of failure.")


def make_items(folder: RunFolder, spec: JobSpec, launcher: Launcher) -> None:
    """Run the missing and failed items of a run, wait for the end, and print nothing on stdout.

    Raises:
        RunError: the workers could not go on.
        IncompleteError: items are left.
    """
    from genrun.runner.submit.lock import of_run

    with contextlib.ExitStack() as held:
        held.enter_context(of_run(folder, say))
        at_work = _enter(folder, launcher)
        _work(folder, spec, launcher, Wishes(wait=True), at_work, list(at_work.values()), held)


def _enter(folder: RunFolder, launcher: Launcher) -> Mapping[str, str]:
    """Make sure that there is something to write to, and return the jobs that are at work by their orders."""
    from genrun.runner.submit.follow import check_writable, tidy

    check_writable(folder)
    at_work = launcher.at_work(folder)
    if not at_work:
        tidy(folder)
    return at_work


def _work(
    folder: RunFolder,
    spec: JobSpec,
    launcher: Launcher,
    wishes: Wishes,
    at_work: Mapping[str, str],
    jobs: list[str],
    held: contextlib.ExitStack,
) -> None:
    """Start workers, or follow those that are at work; `jobs` gets the names of what is put into a queue."""
    from genrun.runner.submit.follow import wait_for
    from genrun.runner.submit.launch_order import make_order

    if at_work and not wishes.join:
        say(f"{folder.path}: at work already: job {', '.join(jobs)}. More workers: genrun submit --join RUN.")
        order = Order.load(folder, max(at_work))
    else:
        order = make_order(folder, launcher, spec.launch.kind, spec, wishes.items)
        if launcher.follows and not wishes.join:
            _let_finish(folder, order, held)
        jobs += _start(folder, launcher, order, held, spec.launch.kind)
    held.close()
    if jobs and wishes.wait:
        _watch(folder, order, lambda watch: wait_for(folder, order, launcher, jobs, watch=watch, say=say))


def _let_finish(folder: RunFolder, order: Order, held: contextlib.ExitStack) -> None:
    """Follow another command that is at work on the run, until nothing is left for an order or that command is gone.

    Workers beside its own would load the model once more, into memory that may not be there.
    """
    from genrun.runner.submit.active import at_work, told
    from genrun.runner.submit.follow import await_others
    from genrun.runner.submit.lock import of_run

    while open_items(folder, order) and (others := at_work(folder)):
        say(f"{folder.path}: at work already: {told(others)}. More workers: genrun submit --join RUN.")
        held.close()
        _watch(folder, order, lambda watch: await_others(folder, order, watch))
        held.enter_context(of_run(folder, say))


def _start(folder: RunFolder, launcher: Launcher, order: Order, held: contextlib.ExitStack, kind: str) -> list[str]:
    """Start workers for what is left: watched to the end where the launcher follows them, else queued."""
    from genrun.runner.submit.follow import run_to_end

    left = open_items(folder, order)
    if not left:
        return []
    order.save(folder)
    if launcher.follows:
        say(f"{folder.path}: {len(left)} items on {launcher.mesh.ranks} ranks ({kind}).")

        def follow(watch: Watcher) -> None:
            run_to_end(folder, order, launcher, watch=watch, say=say, started=held.close)

        _watch(folder, order, follow)
        return []
    job = launcher.submit(folder, order, 0)
    say(f"{folder.path}: {len(left)} items in job {job} ({kind}). How far it is: genrun status.")
    return [job]


def _watch(folder: RunFolder, order: Order, follow: Callable[[Watcher], object]) -> None:
    from genrun.runner.progress import Watcher

    watcher = Watcher(folder, order, _display())
    with _terminated_like_interrupted():
        try:
            follow(watcher)
        finally:
            watcher.close()


def _conclude(folder: RunFolder, jobs: Sequence[str], as_json: bool, extra: Mapping[str, int]) -> None:
    if as_json:
        put_json({**counts(folder, folder.tally(), jobs), **extra, **notes_json(folder.records().values())})
    else:
        put(str(folder.path))


def _display() -> Display:
    from genrun.runner.progress import PlainDisplay, RichDisplay

    return RichDisplay() if on_terminal(err=True) else PlainDisplay(say)


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM and SIGHUP stop the workers as Ctrl-C does."""
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
