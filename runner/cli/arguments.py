"""Arguments and options that several verbs have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from genrun.runner.api import RUNS

job_argument = click.argument("job", type=click.Path(path_type=Path))
"""Decorator that gives a verb the argument JOB."""

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
    help="The folder of runs.",
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
    return click.argument("run", required=False)(runs_option(command))
