"""`genrun status`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import json_option, one_line, put_json, put_table, say
from genrun.runner.cli.runs import counts, notes_json, run_argument
from genrun.runner.cli.tasks import show_tasks, tasks_json
from genrun.runner.notes import NoteGroup, group_notes

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.results import Survey
    from genrun.slurm.submissions import QueueState as Standing

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

    from genrun.runner.store.results import Tally
    from genrun.runner.store.runs import resolve
    from genrun.slurm.commands import Commands

    folder = resolve(run, base)
    items = folder.items()
    from genrun.slurm.submissions import queue_state

    found = queue_state(folder, Commands(os.environ))
    # Records after leases: an item that is finished in between counts as done, and never as pending.
    held = _in_work(folder, found)
    survey = folder.survey(check_files=True)
    rows = [_row(folder, item, survey, item.id in held) for item in items]
    states = [row["status"] for row in rows]
    tally = Tally(len(rows), states.count("done"), states.count("failed"))
    if as_json:
        notes = notes_json(survey.records[item.id] for item in items if item.id in survey.records)
        put_json({**counts(folder, tally, found.job_ids()), **notes, "rows": rows, **tasks_json(found)})
    else:
        _show(folder, rows)
        _show_notes(rows, group_notes(survey.records[item.id] for item in items if item.id in survey.records))
        _show_unreadable(rows, survey)
        show_tasks(found)
    if survey.unreadable:
        raise click.exceptions.Exit(1)


def _in_work(folder: RunFolder, found: Standing) -> set[str]:
    """The items whose makers are alive, as far as their leases and Slurm tell."""
    from genrun.runner.errors import UnreadableError
    from genrun.runner.store.lease import holdings, looks_alive

    now = time.time_ns()
    try:
        held = holdings(folder)
    except UnreadableError as error:
        say(f"Who is at work cannot be told: {error}")
        return set()
    return {
        item_id
        for item_id, holding in held.items()
        if looks_alive(holding, now) and holding.owner is not None and not found.has_ended(holding.owner.job)
    }


def _row(folder: RunFolder, item: WorkItem, survey: Survey, is_held: bool) -> dict[str, Any]:
    record = survey.records.get(item.id)
    state = "unreadable" if record is None and survey.hides(folder.record_path(item.id)) else "pending"
    row: dict[str, Any] = {
        "id": item.id,
        "status": "running" if is_held else state,
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
        "notes": [{"kind": note.kind, "message": note.message} for note in record.notes],
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
        log = f"\n  Log: {error['log']}" if error.get("log") else ""
        say(f"  {error.get('remedy')}{more}{log}")
    if len(alike) > SHOWN_FAILURES:
        say(f"... and {len(alike) - SHOWN_FAILURES} more kinds of failure: genrun status --json lists all.")


def _show_notes(rows: list[dict[str, Any]], found: list[NoteGroup]) -> None:
    """Tell each kind of note once, with the first items that have it."""
    by_id = {row["id"]: row for row in rows}
    for notes in found:
        say(str(notes))
        for item_id, message in notes.items[:SHOWN_ITEMS]:
            say(f"    {item_id}  seed {by_id[item_id]['seed']}  {one_line(message, 200)}")
        if len(notes.items) > SHOWN_ITEMS:
            say(f"    (and {len(notes.items) - SHOWN_ITEMS} more: --json lists them)")


def _show_unreadable(rows: list[dict[str, Any]], survey: Survey) -> None:
    """Tell how many items may be done or not, and what bars the way."""
    count = sum(row["status"] == "unreadable" for row in rows)
    for error in list(survey.unreadable.values())[:SHOWN_ITEMS]:
        say(f"{count} of {len(rows)} items cannot be told: {error}")


def _counted(rows: list[dict[str, Any]]) -> list[int]:
    found = [row["status"] for row in rows]
    return [len(found), *(found.count(state) for state in COUNTED[1:])]


def _pace(rows: list[dict[str, Any]]) -> str:
    times = [row["elapsed_s"] for row in rows if row["status"] == "done"]
    return f"{sum(times) / len(times):.2f}" if times else ""
