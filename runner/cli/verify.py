"""`genrun verify`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from genrun.runner.cli.arguments import run_argument
from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import json_option, put, put_json, say


@click.command(cls=Verb, examples=("genrun verify", "genrun verify demo", "genrun verify runs/demo/latest --json"))
@run_argument
@json_option
def verify(run: str | None, base: Path, as_json: bool) -> None:
    """Check that every file of a run is there and unchanged.

    Exit codes: 0 every planned item is done and every file has the SHA-256 of its record, 1 otherwise.
    """
    from genrun.runner.api import results
    from genrun.runner.api.finding import run_folder

    folder = run_folder(run, base)
    flaws = results.verify(folder)
    if as_json:
        put_json({"run": str(folder.path), "ok": not flaws, "flaws": [asdict(flaw) for flaw in flaws]})
    else:
        for flaw in flaws:
            put(str(flaw))
        found = (
            f"{len(flaws)} flaw{'s' * (len(flaws) > 1)}" if flaws else "whole: every item is done, every file unchanged"
        )
        say(f"{folder.path}: {found}.")
    raise click.exceptions.Exit(1 if flaws else 0)
