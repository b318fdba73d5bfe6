"""`genrun verify`."""

from __future__ import annotations

from pathlib import Path

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import json_option, put, put_json, say
from genrun.runner.cli.runs import run_argument


@click.command(cls=Verb, examples=("genrun verify", "genrun verify demo", "genrun verify runs/demo/latest --json"))
@run_argument
@json_option
def verify(run: str | None, base: Path, as_json: bool) -> None:
    """Check that every file of a run is there and unchanged.

    Exit codes: 0 every planned item is done and every file has the SHA-256 of its record, 1 otherwise.
    """
    from dataclasses import asdict

    from genrun.runner.store.runs import resolve
    from genrun.runner.store.verify import verify as find_flaws

    folder = resolve(run, base)
    flaws = find_flaws(folder)
    if as_json:
        put_json({"run": str(folder.path), "ok": not flaws, "flaws": [asdict(flaw) for flaw in flaws]})
    else:
        for flaw in flaws:
            put(str(flaw))
        say(f"{folder.path}: {_told(len(flaws))}.")
    raise click.exceptions.Exit(1 if flaws else 0)


def _told(flaws: int) -> str:
    if not flaws:
        return "whole: every item is done, every file unchanged"
    return "1 flaw" if flaws == 1 else f"{flaws} flaws"
