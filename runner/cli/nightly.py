"""`genrun nightly`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from genrun.runner.cli.arguments import set_option
from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import Terminal, json_option, put, put_json, say
from genrun.runner.errors import UsageError

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
