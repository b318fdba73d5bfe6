"""`genrun schema`: the JSON schema of job files."""

from __future__ import annotations

import json
from pathlib import Path

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import say


@click.command(cls=Verb, examples=("genrun schema", "genrun schema -o jobs/schema.json"))
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file.")
def schema(output: Path | None) -> None:
    """Print the JSON schema of job files, for editors.

    A job file that starts with `# yaml-language-server: $schema=schema.json` is completed and checked by editors that
    speak the YAML language server.
    """
    from genrun.runner.job.jsonschema import job_schema

    text = json.dumps(job_schema(), indent=2, ensure_ascii=False)
    if output is None:
        click.echo(text)
        return
    try:
        output.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise click.FileError(str(output), error.strerror or "") from error
    say(f"wrote {output}")
