"""`genrun models`: the models that a job can name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import json_option, put, put_json, put_table, say


@click.command(cls=Verb, examples=("genrun models", "genrun models --json", "genrun models --markdown"))
@click.option(
    "--markdown", is_flag=True, help="Print docs/models.md: also guidance, caches, meshes and what is refused."
)
@json_option
def models(markdown: bool, as_json: bool) -> None:
    """List the models, with their defaults.

    Besides these names, `model:` takes the folder or hub id (org/name) of any diffusers pipeline.
    """
    from genrun.runner.job.registries import Registries

    installed = Registries.installed()
    adapters = installed.adapters
    if markdown:
        from genrun.runner.cli.models_page import page

        put(page(adapters, installed.caches).rstrip("\n"))
        return
    rows = [_row(adapters.get(name), name) for name in adapters.names()]
    if as_json:
        put_json(rows)
        return
    put_table(
        ("model", "makes", "title", "dtype", "defaults"),
        [(row["name"], row["kind"] or "?", row["title"], row["dtype"], _short(row["defaults"])) for row in rows],
    )
    say("Use one: `model: NAME` in a job file; change a default: `sampling: {steps: 20}`.")


def _row(adapter: Any, name: str) -> dict[str, Any]:
    checkpoint = adapter.checkpoint
    return {
        "name": name,
        "title": adapter.title,
        "kind": adapter.kind,
        "checkpoint": "packaged" if isinstance(checkpoint, Path) else checkpoint,
        "dtype": adapter.dtype,
        "fps": adapter.fps,
        "defaults": dict(adapter.defaults),
    }


def _short(defaults: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value['kind'] if key == 'scheduler' else value}" for key, value in defaults.items())
