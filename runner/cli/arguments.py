"""Arguments and options that several verbs have."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.api import RUNS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

STDIN = Path("-")
PLAIN = re.compile(r"[\w@%+=:,./-]+")
"""Names that no shell reads as anything else."""

MAX_STDIN = 2**20
"""Bytes that are read of a job on stdin, as of a job file."""


def job_of(job: Path) -> Path | str:
    """Return a job as `load_job` takes it: a file's path, or for `-` the text on stdin.

    Raises:
        JobFileError: stdin is no text, or too much of it.
    """
    if job != STDIN:
        return job
    from genrun.runner.api.jobs import NamedText
    from genrun.runner.job.errors import Origin, refuse
    from genrun.runner.job.yaml import decode

    data = sys.stdin.buffer.read(MAX_STDIN + 1)
    if len(data) > MAX_STDIN:
        refuse(Origin(NamedText.source), f"more than the {MAX_STDIN:,} bytes a job may have. Put prompts into a file.")
    # A text is told from the name of a file by its line breaks.
    text = decode(data, NamedText.source)
    return NamedText(text if "\n" in text else f"{text}\n")


def complete_jobs(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Propose job files: those of this folder, and by name those that come with genrun."""
    from click.shell_completion import CompletionItem

    from genrun.runner.job.files import JOBS

    packaged = [f"jobs/{path.name}" for path in sorted(JOBS.glob("*.yaml"))]
    found = [CompletionItem(name) for name in packaged if begun and name.startswith(begun) and not Path(name).exists()]
    return [*found, CompletionItem(begun, type="file")]


def complete_runs(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Propose the names of jobs that have runs, and after `NAME/` those of its runs."""
    from click.shell_completion import CompletionItem

    from genrun.runner.errors import GenrunError
    from genrun.runner.store.runs import names, runs_of

    base = Path(context.params.get("base") or RUNS)
    try:
        known = names(base)
        if "/" in begun:
            known = [
                f"{name}/{path.name}" for name in known if begun.startswith(f"{name}/") for path in runs_of(base / name)
            ]
    except (GenrunError, OSError):
        return []
    # What is completed goes into the command line as it is, where a shell would run `$(...)` or split at a space.
    return [CompletionItem(name) for name in known if name.startswith(begun) and PLAIN.fullmatch(name)]


def complete_plugins(kind: str) -> Callable[..., list[CompletionItem]]:
    """Return what proposes the names of "solvers", "caches" or "adapters" (models)."""

    def complete(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from genrun.runner.job.registries import Registries

        # After the last comma, where the argument is a list.
        before, comma, word = begun.rpartition(",")
        known = getattr(Registries.installed(), kind).names()
        return [CompletionItem(f"{before}{comma}{name}") for name in known if name.startswith(word)]

    return complete


job_argument = click.argument("job", type=click.Path(path_type=Path, allow_dash=True), shell_complete=complete_jobs)
"""Decorator that gives a verb the argument JOB; `job_of` reads it, which may be `-`."""

set_option = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="A.B=VALUE",
    help="Change a value of the job, such as --set solver.workers=4. VALUE is YAML; may be repeated.",
)
"""Decorator that gives a verb the option `--set`, as the argument `sets`."""

runs_option = click.option(
    "--runs",
    "base",
    type=click.Path(path_type=Path, file_okay=False),
    default=RUNS,
    show_default=True,
    help="The folder of runs; GENRUN_RUNS and `genrun config` change the default.",
)
"""Decorator that gives a verb the option `--runs`, as the argument `base`."""

item_option = click.option("--item", "items", multiple=True, metavar="ID", help="Only this item (the first digits do).")
"""Decorator that gives a verb the option `--item`, as the argument `items`."""

wait_option = click.option(
    "--wait", is_flag=True, help="Return when the work is done, also where a launcher queues it."
)
"""Decorator that gives a verb the flag `--wait`."""


def run_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the argument RUN and the option `--runs`."""
    return click.argument("run", required=False, shell_complete=complete_runs)(runs_option(command))
