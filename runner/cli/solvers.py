"""`genrun solvers`: the solvers that a job can name, and their options."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import json_option, put, put_json, put_table
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command(cls=Verb, examples=("genrun solvers", "genrun solvers ropa", "genrun solvers --json"))
@click.argument("names", metavar="[SOLVER]...", nargs=-1)
@json_option
def solvers(names: Sequence[str], as_json: bool) -> None:
    """List the solvers, with their options.

    Every option is a key beside `kind` in a job file: `solver: {kind: ropa, workers: 8}`.
    """
    from genrun.runner.job.options import describe, title
    from genrun.runner.job.registries import Registries
    from genrun.runner.job.tree import unknown

    registry = Registries.installed().solvers
    for name in names:
        if name not in registry.names():
            raise UsageError(unknown(name, registry.names(), "solver"))
    chosen = names or registry.names()
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "title": title(registry.get(name)),
            "options": [asdict(option) for option in describe(registry.get(name))],
        }
        for name in chosen
    ]
    if as_json:
        put_json(found)
        return
    for solver in found:
        put(f"{solver['name']}: {solver['title']}")
        put_options(solver["options"])
        put("")


def put_options(options: Sequence[dict[str, Any]]) -> None:
    """Print a table of options."""
    from genrun.runner.job.yaml import scalar

    rows = [("  " + option["name"], option["type"], scalar(option["default"]), option["help"]) for option in options]
    if rows:
        put_table(("  option", "type", "default", "meaning"), rows)
