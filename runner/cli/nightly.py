"""`genrun nightly`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.job import set_option
from genrun.runner.cli.output import json_option, put, put_json, say
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from genrun.runner.job.schema import JobSpec
    from genrun.runner.nightly.run import Outcome, Tools
    from genrun.runner.submit.match import Job

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
    from genrun.runner.nightly.run import run_night

    made = _load(job, sets)
    outcome = run_night(made, Path(made.spec.output.dir), _tools(made.spec, made), again=again)
    if as_json:
        put_json(outcome.to_dict())
    else:
        _show(outcome)
    if outcome.exit_code:
        raise click.exceptions.Exit(outcome.exit_code)


def _show(outcome: Outcome) -> None:
    for path in (outcome.folder.path, outcome.report):
        if path is not None:
            say(str(path))
    put(outcome.night.summary)


def _load(path: Path, sets: Sequence[str]) -> Job:
    from genrun.runner.job import load
    from genrun.runner.job.plan import plan
    from genrun.runner.submit.match import Job

    loaded = load(path, sets)
    return Job(loaded.job, loaded.document, plan(loaded))


def _tools(spec: JobSpec, job: Job) -> Tools:
    from genrun.runner.cli import launching
    from genrun.runner.nightly.run import Tools
    from genrun.runner.report.build import build_report

    launcher = launching.make_launcher(spec, job.document)
    return Tools(
        make_items=lambda folder: launching.make_items(folder, spec, launcher),
        is_at_work=launching.is_at_work,
        report=lambda folder: build_report(folder).path,
        now=lambda: datetime.now().astimezone(),
        say=say,
        environ=os.environ,
    )


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
    """How this installation of genrun is called from anywhere."""
    script = Path(sys.executable).with_name("genrun")
    return (str(script),) if script.is_file() else (sys.executable, "-c", "from genrun.runner.cli import main; main()")


def _config(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config").absolute()
