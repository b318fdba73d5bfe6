"""Starting the workers of a run and following them: what `submit`, `retry` and a night have in common."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from genrun.runner.api.calls import QUIET, Listener
from genrun.runner.api.run import Run
from genrun.runner.errors import GenrunError, StoreError, UsageError

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.job.schema import JobSpec
    from genrun.runner.launch.protocol import Launcher
    from genrun.runner.progress import Watcher
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.order import Order


@dataclass(frozen=True)
class Failure:
    """A reason for which items of a run failed.

    Attributes:
        kind: class of the error.
        message: what failed, and why.
        remedy: what to do about it.
        items: number of items that failed for it.
    """

    kind: str
    message: str
    remedy: str
    items: int


class Submission(Run):
    """The run that a submission makes or goes on with.

    Attributes:
        jobs: names of the jobs that wait or work in a queue.
        taken: how many items were `reused` from earlier runs, and how many results were `lost` or are `rewritten`;
            empty where a run is gone on with as it is.
        is_queued: True when the work goes on in a queue after the submission has returned.
        to_make: number of items that were open when it began.
    """

    def __init__(self, folder: RunFolder, taken: Mapping[str, int] | None = None) -> None:
        super().__init__(folder)
        self.jobs: list[str] = []
        self.taken = taken or {}
        self.is_queued = False
        self.to_make = 0

    def failures(self) -> list[Failure]:
        """Return the reasons of which items failed, the most frequent first."""
        errors = [
            record.error
            for record in self.folder.records(check_files=True).values()
            if record.status == "failed" and record.error
        ]
        reasons = Counter(
            (str(error.get("kind") or ""), str(error.get("message") or ""), str(error.get("remedy") or ""))
            for error in errors
        )
        return [Failure(*reason, count) for reason, count in reasons.most_common()]


def launch(
    submission: Submission,
    spec: JobSpec,
    launcher: Launcher,
    *,
    items: Sequence[str] | None = None,
    wait: bool = True,
    join: bool = False,
    locks: contextlib.ExitStack | None = None,
    listener: Listener = QUIET,
) -> Submission:
    """Run the missing items of a run: start workers, or find them at work, and follow them to the end.

    Args:
        submission: the run; gets the names of the jobs that are put into a queue.
        spec: its job.
        launcher: what starts workers.
        items: ids of the items to make, or None for all that are missing or failed.
        wait: return only when the work is done, also where the launcher puts it into a queue.
        join: start more workers beside those that are at work.
        locks: what the caller holds; let go once the workers are there for others to see.
        listener: hears what is done.

    Raises:
        RunError: the workers could not go on.
        IncompleteError: items are left.
    """
    from genrun.runner.store.order import Order, open_items
    from genrun.runner.submit.follow import check_writable, make_order, run_to_end, tidy, wait_for
    from genrun.runner.submit.lock import of_run

    folder, say = submission.folder, listener.say
    with locks or contextlib.ExitStack() as held:
        held.enter_context(of_run(folder, say))
        check_writable(folder)
        queued = launcher.at_work(folder)
        if not queued:
            tidy(folder)
        submission.jobs += queued.values()
        listener.opened(submission)
        if queued and not join:
            say(f"{folder.path}: {_at_work('job ' + ', '.join(submission.jobs))}")
            order = Order.load(folder, max(queued))
        else:
            order = make_order(folder, launcher, spec.launch.kind, spec, items)
            if launcher.follows and not join:
                submission.to_make = len(open_items(folder, order))
                _let_finish(folder, order, held, listener)
            left = open_items(folder, order)
            submission.to_make = max(submission.to_make, len(left))
            if left:
                order.save(folder)
            if left and launcher.follows:
                say(f"{folder.path}: {len(left)} items on {launcher.mesh.ranks} ranks ({spec.launch.kind}).")
                try:
                    with _watching(folder, order, listener) as watch:
                        run_to_end(folder, order, launcher, watch=watch, say=say, started=held.close)
                finally:
                    # This process may live on, and is at work on the run no more: others need not wait for it or stop it.
                    with contextlib.suppress(StoreError):
                        replace(order, launcher=None).save(folder)
            elif left:
                job = launcher.submit(folder, order, 0)
                say(
                    f"{folder.path}: {len(left)} items in job {job} ({spec.launch.kind}). How far it is: genrun status."
                )
                submission.jobs.append(job)
    if submission.jobs and wait:
        with _watching(folder, order, listener) as watch:
            wait_for(folder, order, launcher, submission.jobs, watch=watch, say=say)
    submission.is_queued = bool(submission.jobs) and not wait
    return submission


@contextlib.contextmanager
def notifying(submission: Submission, spec: JobSpec, listener: Listener) -> Iterator[None]:
    """Tell the job's command how the work ended; of what goes on in a queue, a job of the queue tells it."""
    from genrun.runner.steps import tell

    trouble = ""
    try:
        yield
    except GenrunError as error:
        trouble = error.message
        raise
    finally:
        if spec.notify is not None and not submission.jobs and submission.to_make:
            note = tell(submission.folder, spec.notify, trouble)
            if note:
                listener.say(note)


def make_launcher(spec: JobSpec, document: Mapping[str, Any], items: Sequence[WorkItem] = ()) -> Launcher:
    """Return the launcher that a job asks for.

    Args:
        spec: the job.
        document: the same as it is stored.
        items: its plan.

    Raises:
        UsageError: there is no such launcher, or it cannot start that many ranks.
    """
    from genrun.registry import UnknownNameError
    from genrun.runner.launch import registry
    from genrun.runner.submit.follow import request_of

    try:
        make = registry.get(spec.launch.kind)
    except UnknownNameError as error:
        raise UsageError(f"launch.kind: {error}") from error
    return make(request_of(spec, document, os.environ, items))


def is_at_work(folder: RunFolder) -> bool:
    """Tell whether a worker holds an item of a run, or a job of it waits or works in a queue."""
    from genrun.runner.submit import lock

    return lock.is_at_work(folder, os.environ)


def _let_finish(folder: RunFolder, order: Order, held: contextlib.ExitStack, listener: Listener) -> None:
    """Follow other commands at work on the run until an order has no items left or the commands have ended."""
    from genrun.runner.store.order import open_items
    from genrun.runner.submit.follow import await_others
    from genrun.runner.submit.lock import at_work, of_run, told

    # Workers beside theirs would load the model once more, into memory that may not be there.
    while open_items(folder, order) and (others := at_work(folder)):
        listener.say(f"{folder.path}: {_at_work(told(others))}")
        held.close()
        with _watching(folder, order, listener) as watch:
            await_others(folder, order, watch)
        held.enter_context(of_run(folder, listener.say))


def _at_work(who: str) -> str:
    return f"at work already: {who}. More workers: genrun submit --join RUN."


@contextlib.contextmanager
def _watching(folder: RunFolder, order: Order, listener: Listener) -> Iterator[Watcher]:
    """Show how far the run is, and let SIGTERM and SIGHUP stop the workers as Ctrl-C does."""
    from genrun.runner.progress import Watcher

    # Python lets no other thread handle signals.
    is_main = threading.current_thread() is threading.main_thread()
    stopping = (signal.SIGTERM, signal.SIGHUP) if is_main else ()
    watcher = Watcher(folder, order, listener.display())
    before = {number: signal.signal(number, _interrupt) for number in stopping}
    try:
        try:
            yield watcher
        finally:
            watcher.close()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
