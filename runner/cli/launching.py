"""What submit and retry have in common: start workers, show how far they are, end with the right exit code."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from genrun.runner.cli.output import on_terminal, put, put_json, say
from genrun.runner.cli.runs import counts

if TYPE_CHECKING:
    from genrun.runner.launch.contract import Launcher
    from genrun.runner.progress import Display
    from genrun.runner.spec.schema import JobSpec
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.work.order import Order


def make_launcher(spec: JobSpec) -> Launcher:
    """Return the launcher a job asks for.

    Raises:
        UsageError: there is no such launcher, or it cannot start that many ranks.
    """
    from genrun.runner.launch import registry
    from genrun.runner.submit import request_of

    return registry.get(spec.launch.kind)(request_of(spec, os.environ))


def launch(
    folder: RunFolder,
    spec: JobSpec,
    launcher: Launcher,
    *,
    items: Sequence[str] | None = None,
    wait: bool = True,
    as_json: bool = False,
) -> None:
    """Run the missing items of a run, print the run's folder (or JSON), and end the command.

    Raises:
        RunError: the workers could not go on.
        IncompleteError: items are left.
        click.exceptions.Exit: with code 1, items failed.
    """
    from genrun.runner import submit

    submit.check_writable(folder)
    submit.tidy(folder)
    order = submit.make_order(folder, launcher, spec.launch.kind, spec, items)
    left = submit.open_items(folder, order)
    jobs: list[str] = []
    if left:
        order.save(folder)
    try:
        if left and (launcher.follows or wait):
            say(f"{folder.path}: {len(left)} items on {launcher.mesh.ranks} ranks ({spec.launch.kind}).")
            _follow(folder, order, launcher)
        elif left:
            jobs.append(launcher.submit(folder, order, 0))
    finally:
        _conclude(folder, jobs, as_json)
    failed = folder.tally().failed
    if failed:
        say(f"{failed} items failed. Why: genrun status. Again: genrun retry.")
        raise click.exceptions.Exit(1)


def _follow(folder: RunFolder, order: Order, launcher: Launcher) -> None:
    from genrun.runner.progress import Watcher
    from genrun.runner.submit import run_to_end

    watcher = Watcher(folder, order, _display())
    with _terminated_like_interrupted():
        try:
            run_to_end(folder, order, launcher, watch=watcher, say=say)
        finally:
            watcher.close()


def _conclude(folder: RunFolder, jobs: Sequence[str], as_json: bool) -> None:
    if as_json:
        put_json(counts(folder, folder.tally(), jobs))
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
