"""`genrun nightly`, `genrun history` and `genrun pin`: a job's nights, and the run that they are held against."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genrun.runner.cli.base import Verb, run_argument, runs_option, set_option
from genrun.runner.cli.output import Terminal, json_option, put, put_json, put_table, say
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from genrun.runner.store.nights import Night


AT = "02:00"


@click.command(
    cls=Verb,
    examples=(
        "genrun nightly jobs/nightly.yaml",
        "genrun nightly jobs/nightly.yaml --again --json",
        "genrun nightly jobs/nightly.yaml --install cron -n",
        "genrun nightly jobs/nightly.yaml --install systemd --at 03:30",
        "genrun nightly jobs/nightly.yaml --install begin",
    ),
)
@click.argument("job", type=click.Path(path_type=Path))
@set_option
@click.option("--again", is_flag=True, help="Make another run of a night that is done.")
@click.option(
    "--install",
    "kind",
    type=click.Choice(("begin", "cron", "scron", "systemd")),
    help="Have it run every night: by a Slurm job that submits itself again, cron, Slurm's scrontab, or a systemd timer.",
)
@click.option(
    "--at", metavar="HH:MM", help="With --install: when, local time. Default: the job's nightly.at, or 02:00."
)
@click.option(
    "-n", "--dry-run", is_flag=True, help="With --install: show what would be written and called; do neither."
)
@json_option
def nightly(
    job: Path, sets: Sequence[str], again: bool, kind: str | None, at: str | None, dry_run: bool, as_json: bool
) -> None:
    """Run a job for tonight and judge it, or have that done every night.

    Generates (taking up a night that was cut off), scores, compares with the pinned baseline and with last night, writes
    the report, removes the runs of old nights, and tells the command of `notify`. A call belongs to the night of the last
    time the clock showed `nightly.at`; one that finds its night done does nothing. The last line is a summary. Exit
    codes: 0 passed, 1 a gate or items failed, 3 incomplete. With --install prints the path of the script that is called.
    """
    if kind is None and (at is not None or dry_run):
        raise UsageError("--at and -n belong to --install.", remedy="To see what would run: genrun submit JOB -n.")
    if kind is not None:
        _install(job, sets, kind, at, dry_run)
        return
    from genrun.runner.api import nights

    outcome = nights.nightly(job, sets=sets, again=again, listener=Terminal())
    if as_json:
        put_json(outcome.to_dict())
    else:
        for path in (outcome.folder.path, outcome.report):
            if path is not None:
                say(str(path))
        put(outcome.night.summary)
    if outcome.exit_code:
        raise click.exceptions.Exit(outcome.exit_code)


def _install(job: Path, sets: Sequence[str], kind: str, at: str | None, dry_run: bool) -> None:
    from genrun.runner.job import load
    from genrun.runner.schedule import ScheduledCommand as Night
    from genrun.runner.schedule import plan

    spec = load(job, sets).job
    due = spec.nightly.at if spec.nightly is not None else AT
    # The call has to know when it was due, to tell which night it is and whether it is late.
    sets = [*sets, *([f"nightly.at={at}"] if at not in (None, due) else [])]
    at = at or due
    changes = [word for text in sets for word in ("--set", text)]
    night = Night(
        spec.name,
        (*_genrun(), "nightly", str(job.resolve()), *changes),
        Path.cwd(),
        at,
        _config(os.environ) / "genrun",
        {"partition": spec.launch.partition, **{name: spec.launch.options.get(name) for name in ("account", "qos")}},
    )
    installation = plan(kind, night)
    if dry_run:
        put(installation.describe().removesuffix("\n"))
        say("Nothing was written.")
        return
    installation.install(os.environ)
    put(str(night.script))
    say(f"Every night at {at}: {job}. What it writes: {night.log}")


def _genrun() -> tuple[str, ...]:
    """Return how this installation of genrun is called from anywhere."""
    script = Path(sys.executable).with_name("genrun")
    return (str(script),) if script.is_file() else (sys.executable, "-m", "genrun")


def _config(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config").absolute()


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
    from genrun.runner.api.state import run_folder

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
