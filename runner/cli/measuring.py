"""`genrun bench` and `genrun calibrate`: measure solvers, and certify the fastest setting that keeps a tolerance."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.base import OutputFolder, Verb, complete_plugins, job_argument, job_runs_option, set_option
from genrun.runner.cli.output import Terminal, json_option, put, put_json, put_table, say
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from genrun.runner.api.measuring import Bench


SHARED = {"solvers", "samples", "steps", "out", "as_json"}
SWEPT = {"workers", "tolerances", "seed", "latex", "pdf"}
OPTIONS = {
    "model": {*SHARED, *SWEPT, "model", "scheduler", "guidance", "prompts", "batch", "caches", "sets"},
    "problem": {*SHARED, *SWEPT, "problem"},
    "engine": {*SHARED, "engine", "ranks", "latency_ms"},
}
"""Kind of bench -> arguments of the verb that it accepts."""
FLAGS = {"as_json": "json", "sets": "set", "caches": "cache"}


@click.command(
    cls=Verb,
    examples=(
        "genrun bench --model demo-video --out bench/demo-video",
        "genrun bench --model demo-image --solvers ropa,collocation --workers 8 --tolerances 0.02,0.05,0.1",
        "genrun bench --model ./checkpoint --solvers ropa,ropa:curvature=false --steps 30 --set sampling.height=512",
        "genrun bench --model demo-video --solvers collocation --cache first_block:threshold=0.1 --cache toca",
        "genrun bench --problem analytic --samples 4",
        "genrun bench --engine --ranks 8 --latency-ms 50",
    ),
)
@click.option(
    "--model", metavar="NAME", shell_complete=complete_plugins("adapters"), help="A model's name, folder or hub id."
)
@click.option(
    "--problem", metavar="NAME", help="Closed-form problems: analytic (all), mixture, bifurcation, stiff, linear."
)
@click.option("--engine", is_flag=True, help="What time-parallel ranks add to rounds x latency.")
@click.option(
    "--solvers",
    default="all",
    metavar="A,B",
    shell_complete=complete_plugins("solvers"),
    help="Names, with options as in ropa:curvature=false. [all]",
)
@click.option("--workers", default="1,2,4,8", metavar="K,K", help="Evaluations a round. [1,2,4,8]")
@click.option(
    "--tolerances", multiple=True, metavar="[A=]T,T", help="A sweep, of one solver or all. [default x 1/8..4]"
)
@click.option("--steps", type=click.IntRange(1), help="N. [the model's, or 50]")
@click.option("--samples", type=click.IntRange(1), help="Samples of each cell (repeats with --engine). [16, or 3]")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the first sample. [0]")
@click.option("--scheduler", metavar="CLASS", help="A diffusers scheduler in place of the pipeline's own.")
@click.option("--guidance", type=float, help="Guidance scale. [the model's]")
@click.option("--prompts", metavar="FILE", help="Prompts, taken in turn. [captions that come with genrun]")
@click.option(
    "--batch", type=click.IntRange(1), default=1, help="Samples of one pipeline call; above 1 bits may differ."
)
@click.option("--cache", "caches", multiple=True, metavar="NAME", help="On each solver: first_block:threshold=0.1.")
@click.option("--set", "sets", multiple=True, metavar="A.B=VALUE", help="Anything else of a job's model and sampling.")
@click.option("--ranks", type=click.IntRange(1), default=8, help="Most ranks of --engine. [8]")
@click.option("--latency-ms", type=click.FloatRange(1), default=50.0, help="Of a model evaluation with --engine. [50]")
@click.option("--out", type=OutputFolder(), metavar="DIR", help="Folder of the results. [bench/NAME]")
@click.option("--latex", is_flag=True, help="Write pareto.tex, too.")
@click.option("--pdf", is_flag=True, help="Write the charts, too, as PDF into DIR/figures.")
@json_option
@click.pass_context
def bench(context: click.Context, /, **options: Any) -> None:
    """Measure solvers against the sequential sampler: rounds, error, time.

    Every solver is run with every K over a sweep of tolerances, and compared with the sequential sampler of the same
    seeds: rounds and evaluations, RMSE of the final latents, rounds at equal error. DIR gets results.csv, pareto.csv,
    results.json and index.html. Each finished cell is kept, so that the same command goes on where it was cut off; a
    DIR that was begun with another model, prompts or sampling is refused.
    """
    kind = _kind(context, options)
    listener = Terminal()
    # An option that was not given is left to the function that it goes to.
    given = {name: options[name] for name in ("samples", "steps", "out") if options[name] is not None}
    if kind == "engine":
        _put_ranks(options, given, listener)
        return
    from genrun.runner.api import measuring

    names = OPTIONS[kind] - {*given, "samples", "steps", "out", "as_json"}
    given |= {name: options[name] for name in names}
    found = measuring.bench(**given, command=shlex.join(["genrun", *sys.argv[1:]]), listener=listener)
    _put_bench(found, options)


def _kind(context: click.Context, options: dict[str, Any]) -> str:
    """Return which bench was asked for; refuse options of the others."""
    chosen = [kind for kind in OPTIONS if options[kind]]
    if len(chosen) != 1:
        given = " and ".join(f"--{kind}" for kind in chosen) or "none of them was given"
        raise UsageError(f"bench takes one of --model, --problem and --engine; {given}.", remedy="genrun bench --help")
    for name in options:
        given = context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
        if given and name not in OPTIONS[chosen[0]]:
            raise UsageError(f"--{FLAGS.get(name, name).replace('_', '-')} means nothing with --{chosen[0]}.")
    return chosen[0]


def _put_bench(found: Bench, options: dict[str, Any]) -> None:
    from genrun.runner.bench import outputs
    from genrun.runner.bench.outputs import CACHE_COLUMNS, cache_rows

    if options["as_json"]:
        measured = sum(bool(result.samples) for result in found.results)
        put_json(
            {
                "out": str(found.folder.absolute()),
                "page": str(found.page),
                "cells": len(found.results),
                "measured": measured,
                "refused": len(found.results) - measured,
                "files": [str(file.absolute()) for file in found.files],
                "pareto": [outputs.pareto_row(each) for each in found.pareto],
            }
        )
        return
    headings, rows = outputs.grid_rows(found.pareto)
    put_table(headings, rows, right=headings[3:])
    if options["caches"]:
        put("")
        put_table(CACHE_COLUMNS, cache_rows(found.results), right=CACHE_COLUMNS[2:])
    for file in found.files:
        put(str(file.absolute()))
    put(str(found.page))


def _put_ranks(options: dict[str, Any], given: dict[str, Any], listener: Terminal) -> None:
    from genrun.runner.api import measuring
    from genrun.runner.bench.engine import COLUMNS

    asked = {name: options[name] for name in ("ranks", "latency_ms", "solvers")}
    found = measuring.bench_ranks(**asked, **given, listener=listener)
    if options["as_json"]:
        put_json({"latency_ms": found.latency_ms, "cpus": os.cpu_count(), "rows": found.rows})
        return
    put_table(COLUMNS, [[_short(row[name]) for name in COLUMNS] for row in found.rows], right=COLUMNS[1:])


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".removesuffix(".00")


@click.command(
    cls=Verb,
    examples=(
        "genrun calibrate jobs/demo.yaml",
        "genrun calibrate jobs/demo.yaml --samples 72",
        "genrun calibrate jobs/demo.yaml --set solver.tolerance=0.03 --confidence 0.9",
    ),
)
@job_argument
@set_option
@click.option("--samples", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Items that certify.")
@click.option(
    "--confidence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of new items that are to be within the tolerance; the job's own, or 0.95.",
)
@job_runs_option
@json_option
def calibrate(
    job: Path, sets: tuple[str, ...], samples: int, confidence: float | None, base: Path | None, as_json: bool
) -> None:
    """Certify the fastest setting of a job's solver that keeps its tolerance.

    Items of the job's own prompts are sampled sequentially and under settings of its solver, as runs of their own: where
    this is cut off, the same command goes on. The fastest setting that keeps the tolerance is written beside the runs,
    and later jobs with the same model, sampling, solver and K take it by themselves. What cannot be certified is sampled
    exactly.

    What is promised is that the error of a new item is within the tolerance with the probability asked for, over calibration
    and item together. 19 samples are the least for 95 %; 72 without a failure certify 95 % of new items with 95 %
    confidence for the very setting that was found.
    """
    from genrun.runner.api.calibrating import calibrate_tolerance

    found = calibrate_tolerance(job, sets=sets, samples=samples, confidence=confidence, runs=base, listener=Terminal())
    if as_json:
        put_json([{"path": str(each.path), **each.certificate.to_dict()} for each in found])
        return
    for each in found:
        columns = ("tolerance", "probes", "rounds", "largest error", "failed")
        rows = [
            (
                f"{tried.solver['tolerance']:g}",
                str(tried.solver.get("probes") or ""),
                f"{tried.mean_rounds:.1f}",
                f"{max(tried.errors):.4f}",
                str(failed),
            )
            for tried, failed in zip(each.chain, each.failures, strict=True)
        ]
        put_table(columns, rows, right=columns)
        for line in each.lines():
            say(line)
        put(str(each.path))
