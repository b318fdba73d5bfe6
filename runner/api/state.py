"""State of a run, found by what a user calls it: its items one by one, its queue; and stopping the work on it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.api import RUNS
from genrun.runner.api.calls import QUIET, Listener, checked
from genrun.runner.errors import UnreadableError, UsageError
from genrun.runner.store import runs as store
from genrun.runner.store.folder import RunFolder

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.launch.protocol import QueueState
    from genrun.runner.store.order import RankActivity
    from genrun.runner.store.previews import ItemPreview
    from genrun.runner.store.records import Note, Record
    from genrun.runner.store.results import Survey, Tally


AnyRun = str | os.PathLike[str] | RunFolder | None
"""A run folder, a job's name (its latest run), a `Run`, or None: the run submitted last."""

JobName = str | None
"""The name of a job that has runs, or None: all of them."""


def run_folder(run: AnyRun = None, runs: str | os.PathLike[str] = RUNS) -> RunFolder:
    """Open a run.

    Args:
        run: a run folder, a job's name (its latest run), or None (the run submitted last).
        runs: the folder of runs, for names.

    Raises:
        UsageError: there is no such run.
        StoreError: the folder is not a run.
    """
    if isinstance(run, RunFolder):
        return run
    return store.resolve(None if run is None else os.fspath(run), Path(runs))


def find_item(items: Sequence[WorkItem], text: str) -> WorkItem:
    """Return the item whose id begins with `text`.

    Raises:
        UsageError: there is none, or there are several.
    """
    found = [item for item in items if item.id.startswith(text.lower())] if text else []
    if len(found) == 1:
        return found[0]
    why = f"{len(found)} items begin so" if found else "no such item"
    raise UsageError(f"{text!r}: {why}.", remedy="Ids are listed by: genrun status --json.")


@dataclass(frozen=True)
class Item:
    """Item of a run: a prompt with a seed in a cell of the matrix, and what became of it.

    Attributes:
        id: its content address.
        status: "done", "failed", "running", "pending", or "unreadable" when its record cannot be looked into.
        prompt: the prompt.
        seed: the seed.
        axes: axis of the matrix -> label.
        pair: the same for items of the same prompt and seed.
        attempt: 1 for the first try; 0 before it.
        media: its picture or clip, absolute.
        latents: its final latents, if they were saved, absolute.
        elapsed_s: wall time, decoding and writing included.
        rounds: parallel model calls.
        nfe: model evaluations.
        error: what failed: "kind", "message", "remedy", "rank", "log".
        notes: what has to be told about it although it is done.
        promise: of its tolerance: state, tolerance, confidence and the certificate; empty where nothing was asked for.
        audit: True for an item that is compared with the sequential sampler's, and for that one.
    """

    id: str
    status: str
    prompt: str
    seed: int
    axes: Mapping[str, str]
    pair: str
    attempt: int = 0
    media: Path | None = None
    latents: Path | None = None
    elapsed_s: float | None = None
    rounds: int | None = None
    nfe: int | None = None
    error: Mapping[str, Any] | None = None
    notes: tuple[Note, ...] = ()
    promise: Mapping[str, Any] = field(default_factory=dict)
    audit: bool = False

    @classmethod
    def of(cls, folder: RunFolder, item: WorkItem, record: Record | None, state: str = "pending") -> Item:
        """Join an item of the plan and its record; `state` is that of an item whose record does not count yet."""
        if record is None or (state == "running" and record.status != "done"):
            alone = (item.id, state, item.prompt, item.seed, item.axes, item.pair)
            return cls(*alone, promise=item.promise, audit=item.audit)
        return cls(
            item.id,
            record.status,
            item.prompt,
            item.seed,
            item.axes,
            item.pair,
            record.attempt,
            folder.path / record.media if record.media else None,
            folder.path / record.latents if record.latents else None,
            record.elapsed_s,
            record.sampler.rounds if record.sampler else None,
            record.sampler.nfe if record.sampler else None,
            record.error,
            record.notes,
            item.promise,
            item.audit,
        )


@dataclass(frozen=True)
class Status:
    """Progress of a run.

    Attributes:
        folder: the run.
        items: in the order of the plan.
        records: of the items, by id.
        queues: its jobs in every queue that it was ever in.
        unreadable: errors of records that cannot be looked into.
        ranks: what each rank that is at work is doing.
        previews: of items in work, by id, where the job draws them.
    """

    folder: RunFolder
    items: Sequence[Item]
    records: Mapping[str, Record]
    queues: Sequence[QueueState]
    unreadable: Sequence[UnreadableError] = field(default=())
    ranks: Sequence[RankActivity] = field(default=())
    previews: Mapping[str, ItemPreview] = field(default_factory=dict)

    @property
    def tally(self) -> Tally:
        """Items by state; those at work have not been made yet."""
        from genrun.runner.store.results import Tally

        states = [item.status for item in self.items]
        return Tally(len(states), states.count("done"), states.count("failed"))


@checked
def status(run: AnyRun = None, *, runs: str | os.PathLike[str] = RUNS, listener: Listener = QUIET) -> Status:
    """Tell how far a run is, and what its tasks in queues do, with one question to each queue.

    Args:
        run: the run.
        runs: the folder of runs, for names.
        listener: hears when it cannot be told who is at work.
    """
    from genrun.runner.launch.jobs import queues_of
    from genrun.runner.store.order import activities
    from genrun.runner.store.previews import read_preview
    from genrun.runner.store.results import uncollected

    folder = run_folder(run, runs)
    # Of a run of 10,000 items a fifth of the time would go into collecting what is all in use.
    with uncollected():
        planned = folder.items()
        queues = queues_of(folder, os.environ)
        # Records after leases: an item that is finished in between counts as done, and never as pending.
        held = _held(folder, queues, listener)
        survey = folder.survey(check_files=True)
        found = survey.records
        items = [Item.of(folder, item, found.get(item.id), _state(folder, item, survey, held)) for item in planned]
        records = {item.id: found[item.id] for item in planned if item.id in found}
    running = {item.id for item in items if item.status == "running"}
    ranks = activities(folder, running) if running else []
    drawn = {item_id: preview for item_id in running if (preview := read_preview(folder, item_id)) is not None}
    return Status(folder, items, records, queues, tuple(survey.unreadable.values()), ranks, drawn)


@checked
def cancel(
    run: AnyRun = None,
    *,
    tasks: Sequence[str] = (),
    items: Sequence[str] = (),
    runs: str | os.PathLike[str] = RUNS,
    listener: Listener = QUIET,
) -> list[str]:
    """Stop the work on a run, on some of its tasks, or on some of its items; finished items are kept.

    Args:
        run: the run.
        tasks: numbers of the only tasks of its array to stop: "3", or "1234_3".
        items: ids of the only items to stop, or their first digits; they count as failed.
        runs: the folder of runs, for names.
        listener: hears each name as a result once it was told to stop, and what there was nothing to stop of.

    Returns:
        The names of the items, tasks, jobs and launches that were told to stop.

    Raises:
        UsageError: there is no such item, or no such task waits or works.
        LaunchError: the queue gives no answer.
    """
    folder, stopped = run_folder(run, runs), []
    for name in _stop(folder, tasks, items, listener):
        listener.result(name)
        stopped.append(name)
    if not (stopped or tasks or items):
        listener.say(f"{folder.path}: nothing of it waits or works.")
    return stopped


def _stop(folder: RunFolder, tasks: Sequence[str], items: Sequence[str], listener: Listener) -> Iterator[str]:
    """Stop what is wanted, and yield the name of each as soon as it was told."""
    from genrun.runner.launch import jobs

    for text in items:
        yield from _cancel_item(folder, find_item(folder.items(), text).id, listener)
    if tasks:
        yield from jobs.cancel_tasks(folder, os.environ, tasks)
    elif not items:
        yield from jobs.cancel_all(folder, os.environ)


def _held(folder: RunFolder, queues: Sequence[QueueState], listener: Listener) -> set[str]:
    """Return the items whose makers are alive, as far as their leases and queues tell."""
    from genrun.runner.store.lease import holdings, looks_alive

    now = time.time_ns()
    try:
        held = holdings(folder)
    except UnreadableError as error:
        listener.say(f"Who is at work cannot be told: {error}")
        return set()
    return {
        item_id
        for item_id, holding in held.items()
        if looks_alive(holding, now)
        and (owner := holding.owner) is not None
        and not any(queue.has_ended(owner.job) for queue in queues)
    }


def _state(folder: RunFolder, item: WorkItem, survey: Survey, held: set[str]) -> str:
    if item.id in held:
        return "running"
    is_hidden = item.id not in survey.records and survey.hides(folder.record_path(item.id))
    return "unreadable" if is_hidden else "pending"


def _cancel_item(folder: RunFolder, item_id: str, listener: Listener) -> Iterator[str]:
    """Leave a record that says so; whoever is making the item looks for it every second."""
    from genrun.runner.store.records import Record
    from genrun.runner.worker.failures import CancelledError, describe

    present = folder.record(item_id, check_files=True)
    error = describe(CancelledError(), rank=0, log="")
    record = Record(item_id, "failed", 1 if present is None else present.attempt + 1, error=error)
    if folder.write_record(record):
        yield item_id
    else:
        listener.say(f"{item_id}: is done already, and kept.")
