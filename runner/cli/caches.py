"""`genrun caches`: the caches that a job can name, and their options."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import json_option, put, put_json
from genrun.runner.cli.solvers import put_options
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command(cls=Verb, examples=("genrun caches", "genrun caches toca", "genrun caches --json"))
@click.argument("names", metavar="[CACHE]...", nargs=-1)
@json_option
def caches(names: Sequence[str], as_json: bool) -> None:
    """List the caches of transformer blocks, with their options.

    Every option is a key beside `kind` in a job file: `cache: {kind: first_block, threshold: 0.1}`.
    """
    from genrun.runner.spec.registries import Registries
    from genrun.runner.spec.wording import unknown

    registry = Registries.installed().caches
    for name in names:
        if name not in registry.names():
            raise UsageError(unknown(name, registry.names(), "cache"))
    found = [_entry(name, registry.get(name)) for name in names or registry.names()]
    if as_json:
        put_json(found)
        return
    for cache in found:
        put(f"{cache['name']}: {cache['title']}")
        if cache["order"]:
            put(f"  In the order of steps only: {cache['order']}.")
        if cache["package"]:
            put(f"  Needs {cache['package']}: pip install {cache['package']}")
        put_options(cache["options"])
        put("")


def _entry(name: str, cache: Any) -> dict[str, Any]:
    from genrun.runner.spec.options import describe, title

    return {
        "name": name,
        "title": title(cache),
        "models": list(getattr(cache, "models", ())),
        "order": getattr(cache, "needs_order", ""),
        "package": getattr(cache, "package", ""),
        "options": [asdict(option) for option in describe(cache)],
    }
