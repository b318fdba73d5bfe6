"""`genrun decode`."""

from __future__ import annotations

from pathlib import Path

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import json_option, put, put_json, say
from genrun.runner.cli.runs import counts, find_item, run_argument


@click.command(cls=Verb, examples=("genrun decode", "genrun decode demo", "genrun decode demo --item 3f9c"))
@run_argument
@click.option("--item", "wanted", multiple=True, metavar="ID", help="Only this item (the first digits do).")
@json_option
def decode(run: str | None, base: Path, wanted: tuple[str, ...], as_json: bool) -> None:
    """Decode saved latents whose decoding failed.

    Works in this process and samples nothing. Exit codes: 0 all were decoded, 1 some failed again.
    """
    from genrun.runner.rerun import decode as latents
    from genrun.runner.store.runs import resolve
    from genrun.runner.worker.engine import Engine

    folder = resolve(run, base)
    chosen = {find_item(folder.items(), text).id for text in wanted}
    found = [(item, record) for item, record in latents.undecoded(folder) if not chosen or item.id in chosen]
    engine = Engine(folder.job_document()) if found else None
    failed = 0
    for item, record in found:
        outcome = latents.decode(folder, engine, item, record) if engine else None
        if outcome is not None and outcome.status == "done":
            say(f"{item.id}: decoded")
            if not as_json:
                put(str(folder.path / str(outcome.media)))
        elif outcome is not None:
            failed += 1
            error = outcome.error or {}
            say(f"{item.id}: failed again: {error.get('message')}\n  {error.get('remedy')}")
    if not found:
        say("No saved latents wait to be decoded.")
    if as_json:
        put_json(counts(folder, folder.tally()))
    raise click.exceptions.Exit(1 if failed else 0)
