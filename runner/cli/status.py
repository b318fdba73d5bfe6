"""`genrun status`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.arguments import run_argument
from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import (
    Terminal,
    json_option,
    notes_json,
    one_line,
    put,
    put_json,
    put_table,
    run_json,
    say,
)

if TYPE_CHECKING:
    from genrun.runner.api.state import Item, Status
    from genrun.runner.launch.protocol import QueueState

COUNTED = ("items", "done", "failed", "running", "pending")
TASKS = ("job", "step", "tasks", "state", "restarted", "why", "nodes")
SHOWN_FAILURES = 10
SHOWN_ITEMS = 3
SHOWN_NODES = 40


@click.command(cls=Verb, examples=("genrun status", "genrun status demo --json", "genrun status runs/demo/latest"))
@run_argument
@json_option
def status(run: str | None, base: Path, as_json: bool) -> None:
    """Show how far a run is.

    RUN is a run folder, a job's name (its latest run), or nothing (the run submitted last). Of a run in Slurm's queue
    it tells the tasks, too: where they run, why they wait, how they ended; with one call of squeue.
    """
    from genrun.runner.api import state

    found = state.status(run, runs=base, listener=Terminal())
    if as_json:
        put_json(
            {
                **run_json(found.folder, found.tally, [job for queue in found.queues for job in queue.job_ids()]),
                **notes_json(found.records.values()),
                "rows": [_row(found, item) for item in found.items],
                **_tasks_json(found.queues),
            }
        )
    else:
        _put_items(found)
        _say_failures([item for item in found.items if item.status == "failed"])
        _say_notes(found)
        for error in found.unreadable[:SHOWN_ITEMS]:
            count = sum(item.status == "unreadable" for item in found.items)
            say(f"{count} of {len(found.items)} items cannot be told: {error}")
        _put_tasks(found.queues)
    if found.unreadable:
        raise click.exceptions.Exit(1)


def _row(found: Status, item: Item) -> dict[str, Any]:
    row = {
        "id": item.id,
        "status": item.status,
        "pair": item.pair,
        "prompt": item.prompt,
        "seed": item.seed,
        "axes": item.axes,
    }
    if item.status not in ("done", "failed"):
        return row
    return row | {
        "attempt": item.attempt,
        "media": None if item.media is None else str(item.media),
        "latents": None if item.latents is None else str(item.latents),
        "elapsed_s": item.elapsed_s,
        "rounds": item.rounds,
        "nfe": item.nfe,
        "error": item.error,
        "notes": [{"kind": note.kind, "message": note.message} for note in item.notes],
    }


def _put_items(found: Status) -> None:
    """Print how many items are in which state, by the cells of the matrix."""
    say(str(found.folder.path))
    groups: dict[tuple[str, ...], list[Item]] = {}
    for item in found.items:
        groups.setdefault(tuple(item.axes.values()), []).append(item)
    axes = list(found.items[0].axes) if found.items else []
    table = [[*labels, *_counted(group), _pace(group)] for labels, group in groups.items()]
    if len(table) > 1:
        whole = [*_counted(found.items), _pace(found.items)]
        table.append([*["all"][: len(axes)], *[""] * (len(axes) - 1), *whole])
    put_table([*axes, *COUNTED, "s/item"], table, right=(*COUNTED, "s/item"))


def _counted(items: Sequence[Item]) -> list[int]:
    states = [item.status for item in items]
    return [len(states), *(states.count(state) for state in COUNTED[1:])]


def _pace(items: Iterable[Item]) -> str:
    times = [item.elapsed_s or 0.0 for item in items if item.status == "done"]
    return f"{sum(times) / len(times):.2f}" if times else ""


def _say_failures(failures: list[Item]) -> None:
    """Tell each kind of failure once, with the first items that have it."""
    alike: dict[tuple[str, str], list[Item]] = {}
    for item in failures:
        error = item.error or {}
        alike.setdefault((str(error.get("kind")), str(error.get("message"))), []).append(item)
    for (kind, message), items in list(alike.items())[:SHOWN_FAILURES]:
        error = items[0].error or {}
        say(f"{len(items)} failed: {kind}: {one_line(message, 200)}")
        for item in items[:SHOWN_ITEMS]:
            say(f"    {item.id}  seed {item.seed}  {one_line(item.prompt)}")
        more = f" (and {len(items) - SHOWN_ITEMS} more items: --json lists them)" if len(items) > SHOWN_ITEMS else ""
        log = f"\n  Log: {error['log']}" if error.get("log") else ""
        say(f"  {error.get('remedy')}{more}{log}")
    if len(alike) > SHOWN_FAILURES:
        say(f"... and {len(alike) - SHOWN_FAILURES} more kinds of failure: genrun status --json lists all.")


def _say_notes(found: Status) -> None:
    """Tell each kind of note once, with the first items that have it."""
    from genrun.runner.notes import group_notes

    seeds = {item.id: item.seed for item in found.items}
    for notes in group_notes(found.records.values()):
        say(str(notes))
        for item_id, message in notes.items[:SHOWN_ITEMS]:
            say(f"    {item_id}  seed {seeds[item_id]}  {one_line(message, 200)}")
        if len(notes.items) > SHOWN_ITEMS:
            say(f"    (and {len(notes.items) - SHOWN_ITEMS} more: --json lists them)")


def _put_tasks(queues: Sequence[QueueState]) -> None:
    """Print how many tasks are in which state and why, and where the logs of those lie that ended badly."""
    for queue in queues:
        if queue.trouble:
            say(f"Slurm gives no answer: {queue.trouble}\n  What is known without it:")
        groups = queue.groups()
        if groups:
            put("")
            rows = [(g.job, g.step, g.tasks, g.state, g.restarted, g.why, g.nodes[:SHOWN_NODES]) for g in groups]
            put_table(TASKS, rows, right=("tasks", "restarted"))
        for group in groups:
            if group.bad_log is not None:
                say(f"{group.state}: {group.why}\n  Log: {group.bad_log}")


def _tasks_json(queues: Sequence[QueueState]) -> dict[str, Any]:
    """Return the tasks for scripts; nothing for runs that were never in a queue."""
    if not queues:
        return {}
    return {
        "tasks": [dict(row) for queue in queues for row in queue.rows()],
        "slurm": "; ".join(queue.trouble for queue in queues if queue.trouble),
    }
