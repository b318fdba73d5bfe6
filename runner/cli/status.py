"""`genrun status`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.base import Verb, run_argument
from genrun.runner.cli.output import (
    Terminal,
    json_option,
    notes_json,
    on_terminal,
    one_line,
    put,
    put_json,
    put_table,
    run_json,
    say,
)
from genrun.runner.store.order import DECODING

if TYPE_CHECKING:
    from genrun.runner.api.state import Item, Status
    from genrun.runner.launch.protocol import QueueState
    from genrun.runner.store.folder import RunFolder

COUNTED = ("items", "done", "failed", "running", "pending")
TASKS = ("job", "step", "tasks", "state", "restarted", "why", "nodes")
SHOWN_FAILURES = 10
SHOWN_ITEMS = 3
SHOWN_NODES = 40
SHOWN_WORK = 16
"""Items in work, and ranks, that are listed."""

WATCH_S, PLAIN_WATCH_S = 1.0, 10.0
"""Seconds between two looks of --watch: on a terminal, and where lines are kept."""

GIB = 2**30


@click.command(
    cls=Verb,
    examples=(
        "genrun status",
        "genrun status demo --watch",
        "genrun status demo --json",
        "genrun status runs/demo/latest",
    ),
)
@run_argument
@click.option(
    "--watch", is_flag=True, help="Look again and again until nothing is at work; with --json, a line each time."
)
@json_option
def status(run: str | None, base: Path, watch: bool, as_json: bool) -> None:
    """Show how far a run is.

    RUN is a run folder, a job's name (its latest run), or nothing (the run submitted last). Of items in work it tells
    phase, step and time left, and of each rank its memory and the seconds of an evaluation. Of a run in Slurm's queue it
    tells the tasks, too: where they run, why they wait, how they ended; with one call of squeue.
    """
    from genrun.runner.api import state
    from genrun.runner.api.state import run_folder

    folder = run_folder(run, base)
    found = state.status(folder, listener=Terminal())
    if watch:
        ended = _watch(folder, found, as_json)
        if ended is None:
            return
        found = ended
    _put(found, as_json)
    if found.unreadable:
        raise click.exceptions.Exit(1)


def _watch(folder: RunFolder, found: Status, as_json: bool) -> Status | None:
    """Show a run again and again; return its last state once nothing is at work, or None after Ctrl-C."""
    from genrun.runner.api import state

    outlook, clears = Outlook(found), on_terminal() and not as_json
    try:
        while outlook.look(found):
            if clears:
                click.clear()
            _put(found, as_json, outlook.left())
            began = time.process_time()
            time.sleep(outlook.rest_s(as_json))
            found = state.status(folder, listener=Terminal())
            outlook.cost_s = time.process_time() - began
    except KeyboardInterrupt:
        say("No longer watched; the work goes on.")
        return None
    if clears:
        click.clear()
    return found


class Outlook:
    """The end of a run as it is watched: how long its items took, and how many are made at a time.

    Attributes:
        cost_s: processor time of a look, in seconds.
    """

    def __init__(self, found: Status) -> None:
        from genrun.runner.progress import Pace

        self.cost_s = 0.0
        self._found = found
        cells = {item.id: tuple(item.axes.values()) for item in found.items}
        self._pace = Pace(cells, self._taken(found))

    def look(self, found: Status) -> bool:
        """Take a new state; return whether anything is at work."""
        from genrun.runner.submit.lock import at_work

        self._found = found
        self._pace.see(time.monotonic(), self._taken(found), self._parts())
        running = any(item.status == "running" for item in found.items)
        return running or any(queue.live_jobs for queue in found.queues) or bool(at_work(found.folder))

    def left(self) -> str:
        """Say how long the rest takes, as far as anything tells."""
        from genrun.runner.progress import LOADING, clock

        parts = self._parts()
        open_items = [item.id for item in self._found.items if item.status in ("running", "pending")]
        left_s = self._pace.left_s(time.monotonic(), open_items, parts)
        if left_s is None and parts and (taken := self._taken(self._found)):
            # Nothing was finished since the watching began: what was made before tells, by as many as are in work now.
            each = sum(taken.values()) / len(taken)
            left_s = each * (len(open_items) - sum(parts.values())) / len(parts)
        if left_s is not None:
            return f"About {clock(left_s)} left."
        ranks = self._found.ranks
        return f"{LOADING[0].upper()}{LOADING[1:]}." if ranks and not parts else ""

    def rest_s(self, as_json: bool) -> float:
        """Return how long to wait for the next look, which takes a tenth of the time at most."""
        usual = WATCH_S if on_terminal() or as_json else PLAIN_WATCH_S
        return max(usual, 10 * self.cost_s)

    def _parts(self) -> dict[str, float]:
        return {rank.item: rank.front / rank.num_steps for rank in self._found.ranks if rank.front and rank.num_steps}

    @staticmethod
    def _taken(found: Status) -> dict[str, float]:
        return {item.id: item.elapsed_s for item in found.items if item.status == "done" and item.elapsed_s}


def _put(found: Status, as_json: bool, left: str = "") -> None:
    if as_json:
        put_json(
            {
                **run_json(found.folder, found.tally, [job for queue in found.queues for job in queue.job_ids()]),
                **notes_json(found.records.values()),
                "rows": [_row(found, item) for item in found.items],
                **({"ranks": [asdict(rank) for rank in found.ranks]} if found.ranks else {}),
                **_tasks_json(found.queues),
            }
        )
    else:
        _put_items(found)
        _put_work(found)
        if left:
            say(left)
        _say_failures([item for item in found.items if item.status == "failed"])
        _say_notes(found)
        for error in found.unreadable[:SHOWN_ITEMS]:
            count = sum(item.status == "unreadable" for item in found.items)
            say(f"{count} of {len(found.items)} items cannot be told: {error}")
        _put_tasks(found.queues)


def _row(found: Status, item: Item) -> dict[str, Any]:
    row = {
        "id": item.id,
        "status": item.status,
        "pair": item.pair,
        "prompt": item.prompt,
        "seed": item.seed,
        "axes": item.axes,
        **({"promise": item.promise} if item.promise else {}),
        **({"audit": True} if item.audit else {}),
    }
    if item.status not in ("done", "failed"):
        return row | _work(found, item) | _preview(found, item)
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


def _work(found: Status, item: Item) -> dict[str, Any]:
    """Return the phase, step and seconds left of an item in work, as far as its ranks tell."""
    ranks = [rank for rank in found.ranks if item.id in (rank.item, rank.decoding)] if item.status == "running" else []
    if not ranks:
        return {}
    at_it = next((rank for rank in ranks if rank.item == item.id), None)
    if at_it is None or at_it.phase == DECODING:
        return {"phase": DECODING}
    if not at_it.num_steps:
        return {"phase": at_it.phase}
    return {"phase": at_it.phase, "step": at_it.front, "steps": at_it.num_steps, "left_s": at_it.left_s}


def _preview(found: Status, item: Item) -> dict[str, Any]:
    """Return where an item in work is drawn, and at which step that was; nothing where it is not."""
    drawn = found.previews.get(item.id)
    return {} if drawn is None else {"preview": {"file": str(drawn.path), "step": drawn.step, "steps": drawn.steps}}


def _put_work(found: Status) -> None:
    """Print the items in work, each with its phase, step and time left, and what their ranks hold and take."""
    from genrun.runner.progress import clock

    running = [item for item in found.items if item.status == "running"]
    if running:
        put("")
        rows = []
        for item in running[:SHOWN_WORK]:
            work = _work(found, item)
            step = f"{work['step']}/{work['steps']}" if "step" in work else ""
            left_s = work.get("left_s")
            cell = ", ".join(item.axes.values())
            left = "" if left_s is None else clock(left_s)
            rows.append((item.id, cell, work.get("phase", ""), step, left, one_line(item.prompt, 30)))
        columns = ("item", "cell", "phase", "step", "left", "prompt")
        put_table(columns, rows, right=("step", "left"), drop=("prompt", "cell"))
        if len(running) > SHOWN_WORK:
            say(f"... and {len(running) - SHOWN_WORK} more: --json lists them.")
    if found.ranks:
        put("")
        rows = [
            (
                rank.rank,
                rank.item[:8],
                rank.phase,
                f"{rank.memory_bytes / GIB:.2f}" if rank.memory_bytes else "",
                f"{rank.evaluation_s:.3g}" if rank.evaluation_s else "",
            )
            for rank in found.ranks[:SHOWN_WORK]
        ]
        columns = ("rank", "item", "phase", "memory, GiB", "s/evaluation")
        put_table(columns, rows, right=("rank", *columns[3:]))


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
