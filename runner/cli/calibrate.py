"""`genrun calibrate`: certify the fastest setting of a job's solver that keeps its tolerance."""

from __future__ import annotations

from pathlib import Path

import click

from genrun.runner.cli.arguments import job_argument, set_option
from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import Terminal, json_option, put, put_json, put_table, say


@click.command(
    cls=Verb,
    examples=(
        "genrun calibrate jobs/demo.yaml",
        "genrun calibrate jobs/demo.yaml --samples 59",
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
@click.option(
    "--runs",
    "base",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder of runs, in place of the job's output.dir.",
)
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
    and item together. 19 samples are the least for 95 %; 59 without a failure certify 95 % of new items with 95 %
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
                str(tried.solver.get("probes", "")),
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
