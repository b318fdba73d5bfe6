"""`genrun history` and `genrun pin`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from genrun.runner.cli.arguments import run_argument, runs_option
from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import Terminal, json_option, put, put_json, put_table, say

if TYPE_CHECKING:
    from genrun.runner.store.nights import Night

COLUMNS = ("job", "night", "state", "", "done", "gates", "commit", "run")


@click.command(
    cls=Verb,
    examples=("genrun history", "genrun history nightly --json", "genrun history --rebuild --runs /shared/runs"),
)
@click.argument("job", required=False)
@click.option("--rebuild", is_flag=True, help="Make the history file again from the run folders.")
@runs_option
@json_option
def history(job: str | None, rebuild: bool, base: Path, as_json: bool) -> None:
    """List the nights of a job, or of all jobs.

    Tells nights that began late, were called twice (doubled), or were cut off (interrupted). Nights whose runs were
    removed to make room are listed, too.
    """
    from genrun.runner.api.nights import history as nights_of

    nights = nights_of(job, rebuild=rebuild, runs=base, listener=Terminal())
    if as_json:
        put_json([{**night.to_dict(), "late_s": night.late_s, "marks": night.marks} for night in nights])
        return
    put_table(COLUMNS, [_row(night) for night in nights])
    if nights:
        say(nights[-1].summary)
    else:
        say(f"There are no nights in {base}. Begin: genrun nightly JOB.")


@click.command(
    cls=Verb,
    examples=("genrun pin nightly", "genrun pin nightly/2026-01-31T02-00-00-3f9c", "genrun pin nightly --remove"),
)
@run_argument
@click.option("--remove", is_flag=True, help="Unpin: RUN is the job's name, or any of its runs.")
def pin(run: str | None, base: Path, remove: bool) -> None:
    """Make a run the baseline that its job's nights are held against.

    RUN is a run folder, a job's name (its latest run), or nothing (the run submitted last). Nights never remove it; pin
    another to replace it. Prints the run's folder.
    """
    from genrun.runner.api import nights
    from genrun.runner.api.finding import run_folder

    if not remove:
        put(str(nights.pin(run, runs=base).path))
        return
    folder = run_folder(run, base)
    was = nights.unpin(folder)
    say("No longer pinned." if was else f"{folder.path.parent}: no run is pinned.")


def _row(night: Night) -> list[str]:
    states = [each.gate.state for each in night.gates]
    bad = [f"{states.count(state)} {state}" for state in ("failed", "incomplete") if state in states]
    gates = ", ".join(bad) or (f"{len(states)} passed" if states else "")
    run = f"{night.run} (removed)" if night.is_removed else night.run
    commit = night.commit or ""
    short = commit[:8] + ("+" if commit.endswith("+") else "")
    return [
        night.job,
        night.night,
        night.state,
        ", ".join(night.marks),
        f"{night.done}/{night.items}",
        gates,
        short,
        run,
    ]
