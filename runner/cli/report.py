"""`genrun report`."""

from __future__ import annotations

from pathlib import Path

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import json_option, put, put_json
from genrun.runner.cli.runs import run_argument


@click.command(cls=Verb, examples=("genrun report", "genrun report demo --standalone", "genrun report demo --json"))
@run_argument
@click.option("--standalone", is_flag=True, help="Copy the media into the report, so that the folder can be moved.")
@json_option
def report(run: str | None, base: Path, standalone: bool, as_json: bool) -> None:
    """Write a static page: clips side by side, and numbers.

    RUN is a run folder, a job's name (its latest run), or nothing (the run submitted last). The page lies in the run's
    `report` folder, shows the scores that `genrun score` left, and needs no network. Its path is printed.
    """
    from genrun.runner.report.build import build_report
    from genrun.runner.store.runs import resolve

    made = build_report(resolve(run, base), standalone=standalone)
    if as_json:
        put_json({"report": str(made.path), "items": made.items, "failed": made.failed})
    else:
        put(str(made.path))
