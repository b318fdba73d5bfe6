"""`genrun status`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import json_option, one_line, put_json, put_table, say
from genrun.runner.cli.runs import counts, run_argument
from genrun.runner.cli.tasks import show_tasks, tasks_json

if TYPE_CHECKING:
    from genrun.runner.launch.submissions import Standing
    from genrun.runner.plan import WorkItem
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.records import Record

COUNTED = ("items", "done", "failed", "running", "pending")
SHOWN_FAILURES = 10
SHOWN_ITEMS = 3


@click.command(cls=Verb, examples=("genrun status", "genrun status demo --json", "genrun status runs/demo/latest"))
@run_argument
@json_option
def status(run: str | None, base: Path, as_json: bool) -> None:
    """Show how far a run is.

    RUN is a run folder, a job's name (its latest run), or nothing (the run submitted last). Of a run in Slurm's queue
    it tells the tasks, too: where they run, why they wait, how they ended; with one call of squeue.
    """
    import os

    from genrun.runner.launch.submissions import standing
    from genrun.runner.store.folder import Tally
    from genrun.runner.store.runs import resolve
    from genrun.slurm.commands import Commands

    folder = resolve(run, base)
    items = folder.items()
    found = standing(folder, Commands(os.environ))
    # Records after leases: an item that is finished in between counts as done, and never as pending.
    held = _in_work(folder, found)
    records = folder.records()
    rows = [_row(folder, item, records.get(item.id), item.id in held) for item in items]
    states = [row["status"] for row in rows]
    tally = Tally(len(rows), states.count("done"), states.count("failed"))
    if as_json:
        put_json({**counts(folder, tally, found.job_ids()), "rows": rows, **tasks_json(found)})
    else:
        _show(folder, rows)
        show_tasks(found)


def _in_work(folder: RunFolder, found: Standing) -> set[str]:
    """The items whose makers are alive, as far as their leases and Slurm tell."""
    from genrun.runner.store.lease import holdings, looks_alive

    now = time.time_ns()
    return {
        item_id
        for item_id, holding in holdings(folder).items()
        if looks_alive(holding, now) and holding.owner is not None and not found.has_ended(holding.owner.job)
    }


def _row(folder: RunFolder, item: WorkItem, record: Record | None, is_held: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": item.id,
        "status": "running" if is_held else "pending",
        "pair": item.pair,
        "prompt": item.prompt,
        "seed": item.seed,
        "axes": item.axes,
    }
    if record is None or (is_held and record.status != "done"):
        return row
    sampler = record.sampler
    return row | {
        "status": record.status,
        "attempt": record.attempt,
        "media": f"{folder.path}/{record.media}" if record.media else None,
        "latents": f"{folder.path}/{record.latents}" if record.latents else None,
        "elapsed_s": record.elapsed_s,
        "rounds": sampler.rounds if sampler else None,
        "nfe": sampler.nfe if sampler else None,
        "error": record.error,
    }


def _show(folder: RunFolder, rows: list[dict[str, Any]]) -> None:
    say(str(folder.path))
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row["axes"].values()), []).append(row)
    axes = list(rows[0]["axes"]) if rows else []
    table = [[*labels, *_counted(group), _pace(group)] for labels, group in groups.items()]
    if len(table) > 1:
        table.append([*["all"][: len(axes)], *[""] * (len(axes) - 1), *_counted(rows), _pace(rows)])
    put_table([*axes, *COUNTED, "s/item"], table, right=(*COUNTED, "s/item"))
    _show_failures([row for row in rows if row["status"] == "failed"])


def _show_failures(failures: list[dict[str, Any]]) -> None:
    """Tell each kind of failure once, with the first items that have it."""
    alike: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in failures:
        error = row["error"] or {}
        alike.setdefault((str(error.get("kind")), str(error.get("message"))), []).append(row)
    for (kind, message), rows in list(alike.items())[:SHOWN_FAILURES]:
        error = rows[0]["error"] or {}
        say(f"{len(rows)} failed: {kind}: {one_line(message, 200)}")
        for row in rows[:SHOWN_ITEMS]:
            say(f"    {row['id']}  seed {row['seed']}  {one_line(row['prompt'])}")
        more = f" (and {len(rows) - SHOWN_ITEMS} more items: --json lists them)" if len(rows) > SHOWN_ITEMS else ""
        say(f"  {error.get('remedy')}{more}\n  Log: {error.get('log')}")
    if len(alike) > SHOWN_FAILURES:
        say(f"... and {len(alike) - SHOWN_FAILURES} more kinds of failure: genrun status --json lists all.")


def _counted(rows: list[dict[str, Any]]) -> list[int]:
    found = [row["status"] for row in rows]
    return [len(found), *(found.count(state) for state in COUNTED[1:])]


def _pace(rows: list[dict[str, Any]]) -> str:
    times = [row["elapsed_s"] for row in rows if row["status"] == "done"]
    return f"{sum(times) / len(times):.2f}" if times else ""
