"""`genrun validate`, `genrun show` and `genrun schema`: what a job file says, whether it can run, what it may say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.arguments import complete_jobs, job_argument, job_of, set_option
from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import json_option, put, put_json, say
from genrun.runner.job.errors import JobFileError

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command(
    cls=Verb,
    examples=(
        "genrun validate jobs/demo.yaml",
        "genrun validate jobs/*.yaml",
        "genrun validate jobs/demo.yaml --set solver=ropa --json",
        "genrun validate - < job.yaml",
    ),
)
@click.argument(
    "jobs",
    metavar="JOB...",
    type=click.Path(path_type=Path, allow_dash=True),
    nargs=-1,
    required=True,
    shell_complete=complete_jobs,
)
@set_option
@json_option
def validate(jobs: Sequence[Path], sets: Sequence[str], as_json: bool) -> None:
    """Check a job file and report every problem at once.

    JOB is a file, or - for stdin. Reads the job, its parents (`extends`), its prompts and its checkpoint folder, and plans
    its items. Loads no model. Each problem is one line: file:line:column: what is wrong, and the remedy. Exit code 2 if
    there are any.
    """
    results = [_check(job, sets) for job in jobs]
    for result in results:
        if not as_json and result["ok"]:
            put(f"{result['job']}: ok, {result['items']:,} items")
        elif not as_json:
            say(result["text"])
    if as_json:
        put_json([{key: value for key, value in result.items() if key != "text"} for result in results])
    if not all(result["ok"] for result in results):
        raise click.exceptions.Exit(JobFileError.exit_code)


@click.command(
    cls=Verb,
    examples=(
        "genrun show jobs/demo.yaml",
        "genrun show jobs/demo.yaml --origin",
        "genrun show jobs/demo.yaml --set sampling.steps=20 > other.yaml",
    ),
)
@job_argument
@set_option
@click.option("--origin", is_flag=True, help="Say after each value which file and line it came from.")
@json_option
def show(job: Path, sets: Sequence[str], origin: bool, as_json: bool) -> None:
    """Print a job as it will run, with every default filled in.

    What is printed is a job file itself. Secrets from the environment are printed as the variable's name.
    """
    from genrun.runner.api import jobs

    loaded = jobs.load_job(job_of(job), sets)
    if as_json:
        places = {path: str(place) for path, place in loaded.origin.items()}
        put_json({"job": loaded.document, **({"origin": places} if origin else {})})
    else:
        from genrun.runner.job.yaml import render

        put(render(loaded.document, loaded.origin if origin else None).removesuffix("\n"))


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


def _check(job: Path, sets: Sequence[str]) -> dict[str, Any]:
    from genrun.runner.api import jobs

    try:
        loaded = jobs.load_job(job_of(job), sets)
        found = {"job": str(job), "ok": True, "items": len(jobs.plan(loaded)), "problems": []}
        for warning in loaded.warnings:
            say(warning)
        return found
    except JobFileError as error:
        problems = [
            {
                "file": problem.origin.file,
                "line": problem.origin.line,
                "column": problem.origin.column,
                "path": problem.path,
                "message": problem.message,
            }
            for problem in error.problems
        ]
        return {"job": str(job), "ok": False, "items": 0, "problems": problems, "text": str(error)}
