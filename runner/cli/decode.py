"""`genrun decode`."""

from __future__ import annotations

from pathlib import Path

import click

from genrun.runner.cli.arguments import item_option, run_argument
from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import Terminal, json_option, put_json, run_json


@click.command(cls=Verb, examples=("genrun decode", "genrun decode demo", "genrun decode demo --item 3f9c"))
@run_argument
@item_option
@json_option
def decode(run: str | None, base: Path, items: tuple[str, ...], as_json: bool) -> None:
    """Decode saved latents whose decoding failed.

    Works in this process and samples nothing. Exit codes: 0 all were decoded, 1 some failed again.
    """
    from genrun.runner.api import submitting
    from genrun.runner.api.finding import run_folder

    folder = run_folder(run, base)
    records = submitting.decode(folder, items, listener=Terminal(results=not as_json))
    if as_json:
        put_json(run_json(folder, folder.tally()))
    raise click.exceptions.Exit(1 if any(record.status == "failed" for record in records) else 0)
