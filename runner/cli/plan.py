"""`genrun plan` and `genrun prompts`: the items of a job, and what a list of prompts becomes."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.base import Verb, job_argument, job_of, set_option
from genrun.runner.cli.output import Terminal, json_option, one_line, put_json, put_table, say
from genrun.runner.errors import GenrunError, RunError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from genrun.runner.api.prompts import ListedPrompt
    from genrun.runner.forecast import Cost
    from genrun.runner.job import LoadedJob
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.memory.estimate import MemoryEstimate


GIB = 2**30
UNITS = {"": 1, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4, "KI": 2**10, "MI": 2**20, "GI": GIB, "TI": 2**40}


class Size(click.ParamType):
    """A size such as 24GB or 22.5GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", str(value).strip().upper())
        if not found or not float(found[1]):
            self.fail(f"{value!r} is no size such as 24GB.", param, ctx)
        return int(float(found[1]) * UNITS[found[2]])


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
    from genrun.runner.api import jobs
    from genrun.runner.api.arranging import arrange, measure

    if memory or gpu_memory is not None:
        _put_memory(jobs.load_job(job_of(job), sets), gpu_memory, as_json)
        return
    if calibrate:
        measure(job_of(job), sets, Terminal())
    found = arrange(job_of(job), sets)
    items = found.items
    if as_json:
        put_json([item.to_dict() for item in items])
    elif listing:
        _put_items(items)
    else:
        _put_counts(items)
    if not as_json:
        say(f"{len(items):,} items")
        _put_forecast(found.loaded, items, found.why)


def _put_items(items: Sequence[WorkItem]) -> None:
    axes = list(items[0].axes)
    rows = [(item.id, *item.axes.values(), item.seed, one_line(item.prompt)) for item in items]
    put_table(("id", *axes, "seed", "prompt"), rows, right=("seed",))


def _put_counts(items: Sequence[WorkItem]) -> None:
    """Print a row for each cell of the matrix; without a matrix, one for the solver."""
    axes = list(items[0].axes) or ["solver"]
    cells = [tuple(item.axes.values()) or (str(item.solver["kind"]),) for item in items]
    count = Counter(cells)
    texts = ((item.prompt, item.negative_prompt, item.own) for item in items)
    prompts = Counter(cell for cell, _ in set(zip(cells, texts, strict=True)))
    seeds = Counter(cell for cell, _ in {(cell, item.seed) for cell, item in zip(cells, items, strict=True)})
    rows = [(*cell, prompts[cell], seeds[cell], f"{number:,}") for cell, number in count.items()]
    put_table((*axes, "prompts", "seeds", "items"), rows, right=("prompts", "seeds", "items"))


def _put_forecast(loaded: LoadedJob, items: Sequence[WorkItem], why: str) -> None:
    """Say which ranks would be used and why, and how long that takes as far as earlier runs can tell."""
    from genrun.runner.api import jobs

    try:
        found = jobs.forecast(loaded, items, why)
    except GenrunError as error:
        say(f"Ranks: {error}")
        return
    say(f"Ranks: {found.mesh}{', elastic' if found.elastic else ''} ({loaded.job.launch.kind}); {found.why}.")
    if any(found.costs):
        _put_costs(items, found.costs)
    if not all(found.costs):
        say("Time: not known for every solver before a run of it; genrun plan --calibrate measures one item of each.")
    elif found.predictions:
        columns = ("data", "time", "all items, s", "one item, s", "")
        rows = [
            (
                each.mesh.data,
                each.mesh.time,
                f"{each.makespan_s:.1f}",
                f"{each.latency_s:.1f}",
                "chosen" if each.mesh == found.mesh else "",
            )
            for each in found.predictions
        ]
        put_table(columns, rows, right=columns[:4])


def _put_costs(items: Sequence[WorkItem], costs: Sequence[Cost | None]) -> None:
    told = {}
    for item, cost in zip(items, costs, strict=True):
        if cost is not None:
            told[item.solver["kind"], cost] = (
                f"{item.solver['kind']}: {cost.rounds:.1f} rounds, {cost.nfe:.1f} evaluations of "
                f"{cost.evaluation_s:.3g} s (from {cost.seen} items)"
            )
    say("\n".join(told.values()))


def _put_memory(loaded: LoadedJob, gpu_bytes: int | None, as_json: bool) -> None:
    """Print the modes of each model and size of a job, and which of them fits.

    Raises:
        RunError: nothing fits.
    """
    from genrun.runner.api import jobs
    from genrun.runner.memory.estimate import fastest

    tables = jobs.estimate_memory(loaded)
    best = [None if gpu_bytes is None else fastest(found, gpu_bytes) for _, found in tables]
    if as_json:
        put_json(
            [
                {
                    "checkpoint": str(subject.folder),
                    "shape": asdict(subject.shape),
                    "modes": [{**asdict(each), "peak_bytes": each.peak_bytes} for each in found],
                    "fits": fitting and {"mode": fitting.mode, "tiled": fitting.tiled},
                }
                for (subject, found), fitting in zip(tables, best, strict=True)
            ]
        )
    fits = () if gpu_bytes is None else (f"fits {gpu_bytes / GIB:.1f}",)
    for subject, found in () if as_json else tables:
        shape = subject.shape
        say(f"{subject.folder.name}, {shape.width}x{shape.height}, {shape.num_frames} frames, {subject.holding.dtype}:")
        rows = [_memory_row(each, gpu_bytes) for each in found]
        put_table(("offload", "vae", "encode", "denoise", "decode", "peak GiB", *fits), rows)
    if gpu_bytes is None:
        return
    for (_, found), fitting in zip(tables, best, strict=True):
        if fitting is None:
            least = min(each.peak_bytes for each in found)
            remedy = "Make fewer pixels or frames, use model.dtype: bfloat16, or model.quantization."
            raise RunError(f"Nothing fits: the least is {least / GIB:.1f} GiB of {gpu_bytes / GIB:.1f}.", remedy=remedy)
        needed = f"Use `model: {{{fitting.options}}}`."
        say(needed if fitting.options else "All of it fits: nothing need be offloaded.")


def _memory_row(each: MemoryEstimate, gpu_bytes: int | None) -> tuple[str, ...]:
    sizes = (each.encode_bytes, each.denoise_bytes, each.decode_bytes, each.peak_bytes)
    fits = () if gpu_bytes is None else ("yes" if each.peak_bytes <= gpu_bytes else "no",)
    return (each.mode, "tiles" if each.tiled else "whole", *(f"{size / GIB:.1f}" for size in sizes), *fits)


@click.command(
    cls=Verb,
    examples=(
        "genrun prompts jobs/demo.yaml",
        "genrun prompts prompts/mine.csv --model sd3.5",
        "genrun prompts job.yaml --json | jq -r '.prompts[].prompt'",
    ),
)
@click.argument("source", metavar="FILE|JOB", type=click.Path())
@click.option("--model", metavar="NAME", help="For a file: the adapter, folder or hub id whose tokenizers count.")
@click.option("-n", "limit", type=click.IntRange(min=1), help="Show the first prompts only.")
@set_option
@json_option
def prompts(source: str, model: str | None, limit: int | None, sets: Sequence[str], as_json: bool) -> None:
    """Show what a list of prompts becomes.

    FILE is a .txt, .csv or .jsonl file, JOB a job. Templates and wildcards are written out, files that rows name are looked
    at, and problems are told as `genrun validate` tells them. Where the model's tokenizers are on this machine, each
    prompt's tokens are counted for each of them, with what would be cut.
    """
    from genrun.runner.api.prompts import list_prompts

    found = list_prompts(source, model=model, sets=sets)
    shown = found.prompts[:limit]
    if as_json:
        put_json({"prompts": [each.to_dict() for each in shown], "uncounted": found.uncounted})
        return
    encoders = [each.encoder for each in shown[0].tokens] if shown else []
    rows = [_row(number, each) for number, each in enumerate(shown, start=1)]
    put_table(("", "prompt", "its own", "seeds", *encoders), rows, right=("", "seeds", *encoders))
    for number, each in enumerate(shown, start=1):
        for tokens in each.tokens:
            if tokens.lost:
                say(f"{number} ({each.place}): {tokens.encoder} does not see {one_line(tokens.lost)!r}")
    say(f"{len(found.prompts):,} prompts{f', {len(shown):,} shown' if len(shown) < len(found.prompts) else ''}")
    if found.uncounted:
        say(f"Tokens: {found.uncounted}")


def _row(number: int, prompt: ListedPrompt) -> tuple[str, ...]:
    own = {**prompt.row, **{name: ", ".join(files) for name, files in prompt.inputs.items()}}
    told = ", ".join(f"{name} {value}" for name, value in own.items())
    counts = (f"{each.count}/{each.window}" if each.window else str(each.count) for each in prompt.tokens)
    seeds = prompt.seeds
    return (
        str(number),
        one_line(prompt.text),
        one_line(told, 40),
        str(seeds[0] if len(seeds) == 1 else len(seeds)),
        *counts,
    )
