"""`genrun nightly`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import put, say


@click.command(
    cls=Verb,
    examples=(
        "genrun nightly jobs/nightly.yaml --install cron -n",
        "genrun nightly jobs/nightly.yaml --install systemd --at 03:30",
        "genrun nightly jobs/nightly.yaml --install begin",
    ),
)
@click.argument("job", type=click.Path(path_type=Path))
@click.option(
    "--install",
    "kind",
    type=click.Choice(("begin", "cron", "scron", "systemd")),
    required=True,
    help="By what: a Slurm job that submits itself again, cron, Slurm's scrontab, or a systemd timer of this user.",
)
@click.option("--at", default="02:00", show_default=True, metavar="HH:MM", help="When, local time.")
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be written and called; do neither.")
def nightly(job: Path, kind: str, at: str, dry_run: bool) -> None:
    """Have a job run every night.

    Installs `genrun nightly JOB` as a small script, and has it called every night from this folder. Installing again
    replaces what was installed for the same job file. Prints the script's path.
    """
    from genrun.runner.schedule import Night, plan
    from genrun.runner.spec import load

    spec = load(job).job
    night = Night(
        spec.name,
        (*_genrun(), "nightly", str(job.resolve())),
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
