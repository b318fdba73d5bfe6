"""`genrun plan`: the items of a job."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.job import job_argument, set_option
from genrun.runner.cli.memory import Size, put_memory
from genrun.runner.cli.output import json_option, one_line, put_json, put_table, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from genrun.runner.job.plan import WorkItem


@click.command(
    cls=Verb,
    examples=(
        "genrun plan jobs/demo.yaml",
        "genrun plan jobs/demo.yaml --list --set prompts.limit=2",
        "genrun plan jobs/demo.yaml --set parallel=auto --set launch.processes=4 --calibrate",
        "genrun plan jobs/demo.yaml --json | jq -r '.[].id'",
        "genrun plan jobs/demo.yaml --memory --gpu-memory 24GB",
    ),
)
@job_argument
@set_option
@click.option("--list", "listing", is_flag=True, help="List the items: id, cell of the matrix, seed, prompt.")
@click.option("--memory", is_flag=True, help="Estimate the memory of a rank, by mode of offloading.")
@click.option("--gpu-memory", type=Size(), metavar="SIZE", help="With --memory: say what fits, such as 24GB.")
@click.option("--calibrate", is_flag=True, help="Measure one item of each solver here first, to say how long it takes.")
@json_option
def plan(
    job: Path,
    sets: Sequence[str],
    listing: bool,
    memory: bool,
    gpu_memory: int | None,
    calibrate: bool,
    as_json: bool,
) -> None:
    """Count the items of a job, or list them.

    An item is one prompt with one seed in one cell of the matrix. Its id is a hash of everything that changes its
    pixels and of nothing else, so that it is the same on one GPU and on eight. Says too which ranks would be used and why,
    and how long that takes, as far as records of earlier runs in the same folder can tell.

    With --memory, estimate what a rank needs instead. Nothing is loaded for it: weights are read off the headers of
    the checkpoint's files, and what a model needs besides is a rule of thumb for its architecture and the size of the
    pictures.
    """
    from genrun.runner.cli.forecast import tell_forecast
    from genrun.runner.job import load
    from genrun.runner.job.plan import plan as plan_items

    loaded = load(job, sets)
    if memory or gpu_memory is not None:
        put_memory(loaded, gpu_memory, as_json=as_json)
        return
    items = plan_items(loaded)
    if calibrate:
        from genrun.runner import forecast
        from genrun.runner.worker.engine import Engine

        forecast.calibrate(items, Engine(loaded.document), Path(loaded.job.output.dir), say)
    if as_json:
        put_json([item.to_dict() for item in items])
    elif listing:
        _put_items(items)
    else:
        _put_counts(items)
    if not as_json:
        say(f"{len(items):,} items")
        tell_forecast(loaded, items)


def _put_items(items: Sequence[WorkItem]) -> None:
    axes = list(items[0].axes)
    rows = [(item.id, *item.axes.values(), item.seed, one_line(item.prompt)) for item in items]
    put_table(("id", *axes, "seed", "prompt"), rows, right=("seed",))


def _put_counts(items: Sequence[WorkItem]) -> None:
    """A row for each cell of the matrix; without a matrix, one for the solver."""
    axes = list(items[0].axes) or ["solver"]
    cells = [tuple(item.axes.values()) or (str(item.solver["kind"]),) for item in items]
    count = Counter(cells)
    prompts = Counter(cell for cell, _ in {(cell, item.prompt) for cell, item in zip(cells, items, strict=True)})
    seeds = Counter(cell for cell, _ in {(cell, item.seed) for cell, item in zip(cells, items, strict=True)})
    rows = [(*cell, prompts[cell], seeds[cell], f"{number:,}") for cell, number in count.items()]
    put_table((*axes, "prompts", "seeds", "items"), rows, right=("prompts", "seeds", "items"))
