"""`genrun init`, `validate`, `show` and `schema`: a job file for a model, whether it can run, and what it may say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.base import OutputFile, Verb, complete_jobs, complete_plugins, job_argument, job_of, set_option
from genrun.runner.cli.output import STDOUT, json_option, put, put_file, put_json, say
from genrun.runner.errors import UsageError
from genrun.runner.job.errors import JobFileError

if TYPE_CHECKING:
    from genrun.adapters.adapter import Adapter


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
@click.option("-o", "--output", type=OutputFile(), default="-", help="Write to this file.")
def schema(output: Path) -> None:
    """Print the JSON schema of job files, for editors.

    A job file that starts with `# yaml-language-server: $schema=schema.json` is completed and checked by editors that
    speak the YAML language server.
    """
    from genrun.runner.job.jsonschema import job_schema

    if not output.parent.is_dir():
        raise click.FileError(str(output), "no such folder")
    put_file(output, f"{json.dumps(job_schema(), indent=2, ensure_ascii=False)}\n")
    if output != STDOUT:
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


PROMPTS = ("a red kite over a beach at noon", "a lighthouse in the snow, seen from the sea")
SAMPLING = {
    "steps": "sequential steps N",
    "guidance_scale": "how far the prompt pushes",
    "height": "pixels",
    "width": "pixels",
    "num_frames": "frames of a clip",
}
"""Keys of `sampling` that are written out, with what they are."""

COLUMN = 44
"""Of the comments behind values."""


@click.command(
    cls=Verb,
    examples=(
        "genrun init demo-video",
        "genrun init wan2.1 -o wan.yaml",
        "genrun init ./checkpoint -o - | genrun validate -",
    ),
)
@click.argument("model", shell_complete=complete_plugins("adapters"))
@click.option(
    "-o",
    "--output",
    type=OutputFile(),
    help="Write to this file; - prints it. Default: MODEL.yaml.",
)
def init(model: str, output: Path | None) -> None:
    """Write a job file for a model, with comments.

    MODEL is a name that `genrun models` lists, a folder in diffusers' layout, or a hub id. The job has the model's own size,
    steps and guidance, and says what else there is; nothing is asked, and no file is replaced. Prints the file's path.
    """
    from genrun.runner.api import jobs
    from genrun.runner.job.cell import Draft, Sources
    from genrun.runner.job.checks.inputs import needed_fields
    from genrun.runner.job.errors import Origin
    from genrun.runner.job.layers import expand
    from genrun.runner.job.options import Registries
    from genrun.runner.job.prompt_files import INPUTS
    from genrun.runner.job.tree import dress

    registries = Registries.installed()
    if model in registries.adapters.names() and registries.adapters.get(model).checkpoint is None:
        said = f"{model}: stands for any model of diffusers, and has no weights of its own."
        raise UsageError(said, remedy="Name a folder or a hub id: genrun init FOLDER; genrun models lists names.")
    job = {"model": model, "prompts": list(PROMPTS)}
    try:
        jobs.load_job(job)
    except JobFileError as error:
        # Pictures that the model cannot do without are named in the job, for the user to put there.
        if any(problem.path or problem.message.partition(":")[0] not in INPUTS for problem in error.problems):
            raise
    root = expand(dress(job, Origin("job")), registries.adapters.names())
    draft = Draft(root, {}, Sources(registries))
    needed, _ = needed_fields(draft.pipeline, frozenset(draft.adapter.call))
    text = "".join(f"{line}\n" for line in lines_of(model, draft.adapter, draft.sampling or {}, needed))
    if output == STDOUT:
        put_file(STDOUT, text)
        return
    path = output or Path(
        f"{re.sub(r'[^A-Za-z0-9._-]+', '-', model.rstrip('/').rpartition('/')[2]).strip('-.') or 'job'}.yaml"
    )
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path}: is there already.", remedy="Another file: -o FILE; the terminal: -o -.")
    put_file(path, text)
    put(str(path))
    if needed:
        say(f"It needs files: put yours in place of {', '.join(_file_of(field) for field in needed)}.")
    say(f"Next: genrun plan {path}; genrun submit {path}")


def lines_of(model: str, adapter: Adapter, sampling: Mapping[str, Any], needed: Sequence[str] = ()) -> Iterator[str]:
    """Yield the lines of a job for a model.

    Args:
        model: as the user named it.
        adapter: the model's.
        sampling: of a job that gives nothing else.
        needed: fields of a prompt that name files, and without which the model makes nothing.
    """
    from genrun.runner.job.yaml import scalar

    yield f"# A job for {adapter.title}. Every key: docs/jobs.md, or genrun schema."
    yield f"model: {scalar(model)}"
    yield ""
    yield "prompts:" + _padded("prompts:", "or prompts.txt, one a line; .csv and .jsonl, too")
    for prompt in _prompts(adapter):
        fields = {"prompt": prompt, **{field: _file_of(field) for field in needed}} if needed else prompt
        yield f"  - {scalar(fields)}"
    yield _commented("seeds: [0, 1]", "every prompt with each")
    yield ""
    yield "sampling:" + _padded("sampling:", "the model's own; genrun plan --memory says what it takes")
    shown = {key: sampling[key] for key in SAMPLING if sampling.get(key) is not None}
    yield from (_commented(f"  {key}: {scalar(value)}", SAMPLING[key]) for key, value in shown.items())
    if "steps" not in shown:
        yield _commented("  steps: 50", SAMPLING["steps"])
    yield ""
    yield _commented(
        "solver: {kind: collocation, workers: 8}", "genrun solvers lists them; sequential is the reference"
    )
    yield "# Several at once, side by side in the report, in place of `solver`:"
    yield "#matrix: {solver: [sequential, collocation, ropa]}"
    yield ""
    yield _commented("#parallel: {time: 2}", "ranks that share one item; starts torchrun")
    yield _commented("#launch: {kind: slurm, gpus: 8}", "a cluster's queue; genrun doctor looks for one")
    yield ""
    yield _commented("#output: {save_latents: true}", "keeps the final latents")
    yield _commented("#score: [latent_rmse, psnr]", "genrun score --list")


def _prompts(adapter: Adapter) -> tuple[str, ...]:
    """Return prompts that a model can follow: the small ones know nothing but the captions they were trained on."""
    from genrun.runner.job.files import JOBS

    if adapter.captions is None:
        return PROMPTS
    name = "demo.txt" if adapter.kind == "video" else "demo-images.txt"
    lines = (JOBS / "prompts" / name).read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line.strip() and not line.startswith("#"))[: len(PROMPTS)]


def _file_of(field: str) -> str:
    return "clip.mp4" if field == "video" else f"{field}.png"


def _commented(text: str, comment: str) -> str:
    return text + _padded(text, comment)


def _padded(text: str, comment: str) -> str:
    return f"{' ' * max(2, COLUMN - len(text))}# {comment}"
