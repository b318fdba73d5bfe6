"""`genrun compare`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.base import OutputFile, Verb, complete_runs, runs_option
from genrun.runner.cli.output import is_printed, json_option, one_line, put, put_file, put_json, put_table, say

if TYPE_CHECKING:
    from genrun.runner.compare import Comparison


@click.command(
    cls=Verb,
    examples=(
        "genrun compare demo --by solver --baseline sequential",
        "genrun compare nightly/pinned nightly/latest",
        "genrun compare runs/demo/2026-01-31T02-00-00-3f9c demo --drift psnr,ssim --markdown summary.md",
        "genrun compare demo --gates jobs/demo.yaml --junit gates.xml",
        "genrun compare demo --by solver --latex table.tex --pdf figure.pdf",
    ),
)
@click.argument("runs", metavar="[RUN_A] RUN_B", nargs=-1, shell_complete=complete_runs)
@click.option("--by", metavar="AXIS", help="Compare the cells of one run along this axis of its matrix.")
@click.option("--baseline", metavar="LABEL", help="The label of that axis that the others are held against.")
@click.option(
    "--gates",
    "gates_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Take the gates of this job file instead of the run's own.",
)
@click.option(
    "--drift", default="", metavar="A,B", help="Measure the distance to the baseline's own clips: psnr, ssim."
)
@click.option("--worst", metavar="METRIC", help="Whose ten worst pairs are listed. Default: that of a failed gate.")
@click.option(
    "--confidence", type=click.FloatRange(0.5, 0.9999), default=0.95, show_default=True, help="Of every interval."
)
@click.option("--junit", "junit_file", type=OutputFile(), help="Write JUnit XML here; - prints it, as below.")
@click.option("--markdown", "markdown_file", type=OutputFile(), help="Write Markdown here.")
@click.option("--latex", "latex_file", type=OutputFile(), help="Write a LaTeX table here.")
@click.option("--pdf", "pdf_file", type=OutputFile(is_text=False), help="Write a figure as PDF here.")
@runs_option
@json_option
def compare(
    runs: tuple[str, ...],
    by: str | None,
    baseline: str | None,
    gates_file: Path | None,
    drift: str,
    worst: str | None,
    confidence: float,
    junit_file: Path | None,
    markdown_file: Path | None,
    latex_file: Path | None,
    pdf_file: Path | None,
    base: Path,
    as_json: bool,
) -> None:
    """Compare two runs, or the cells of one, and judge the gates of the job.

    RUN_A is the baseline of RUN_B; a single run is compared with itself along an axis of its matrix. Items are paired by
    prompt and seed; every difference has a paired interval. A gate fails only when its interval lies wholly beyond the
    limit. Exit codes: 0 passed, 1 a gate failed, 3 too little was measured to tell.
    """
    from genrun.registry import did_you_mean
    from genrun.runner.api import results
    from genrun.runner.compare.formats import headline
    from genrun.runner.compare.results import exit_code
    from genrun.runner.errors import UsageError

    is_taken = is_printed(as_json, junit=junit_file, markdown=markdown_file, latex=latex_file)
    names = [name.strip() for name in drift.split(",") if name.strip()]
    found = results.compare(
        *runs, by=by, baseline=baseline, gates=gates_file, drift=names, confidence=confidence, runs=base
    )
    compared = dict.fromkeys(each.metric for cell in found.cells for each in cell.differences)
    if worst is not None and worst not in compared:
        meant = did_you_mean(worst, compared)
        raise UsageError(f"--worst {worst[:80]}: is not compared.{meant}", remedy=f"There are: {', '.join(compared)}.")
    _write(found, junit_file, markdown_file, latex_file, pdf_file)
    if as_json:
        put_json(as_data(found))
    elif is_taken:
        say(headline(found))
    else:
        _show(found, worst)
    if not as_json:
        for note in found.notes:
            say(note)
    if code := exit_code(found.state):
        raise click.exceptions.Exit(code)


def as_data(found: Comparison) -> dict[str, Any]:
    """Return a comparison for scripts: its fields, and what the interval says of every difference."""
    data = asdict(found)
    for cell, made in zip(found.cells, data["cells"], strict=True):
        for each, row in zip(cell.differences, made["differences"], strict=True):
            row["verdict"] = each.verdict
    return data


def _write(
    found: Comparison,
    junit_file: Path | None,
    markdown_file: Path | None,
    latex_file: Path | None,
    pdf_file: Path | None,
) -> None:
    from genrun.runner.compare.formats import junit, latex, markdown
    from genrun.runner.store.files import atomic_write

    if junit_file is not None:
        put_file(junit_file, junit(found).decode())
    if markdown_file is not None:
        put_file(markdown_file, markdown(found))
    if latex_file is not None:
        put_file(latex_file, latex(found))
    if pdf_file is not None:
        from genrun.runner.compare.formats import pdf

        atomic_write(pdf_file, pdf(found))


def _show(found: Comparison, worst: str | None) -> None:
    from genrun.runner.compare import formats

    say(f"{found.candidate}\n  against {'its own cells' if found.by else found.baseline}")
    put_table(
        formats.DIFFERENCES, formats.difference_rows(found), right=formats.RIGHT, drop=("d", "prompts +/=/-", "n")
    )
    for cell in found.cells:
        alone = cell.only_baseline + cell.only_candidate
        if cell.identical or alone:
            more = f"; {alone} prompts and seeds are on one side only" if alone else ""
            say(f"{cell.label}: {cell.identical} of {cell.pairs} pairs have identical files{more}.")
    if found.unmatched:
        say(f"Without a partner: {', '.join(found.unmatched)}.")
    if found.gates:
        put("")
        put_table(formats.GATES, formats.gate_rows(found), right=())
    _show_worst(found, formats.worst_metric(found, worst))
    say(formats.headline(found))


def _show_worst(found: Comparison, metric: str | None) -> None:
    from genrun.runner.compare import formats

    for cell in found.cells:
        for each in cell.differences:
            if each.metric == metric and each.worst:
                put(f"\nWorst pairs of {cell.label} by {metric}:")
                for row, pair in zip(formats.worst_rows(each), each.worst, strict=True):
                    prompt, seed, one, other, difference = row
                    put(f"  {one} -> {other} ({difference})  seed {seed}  {one_line(prompt)}")
                    put(f"      {pair.baseline.media}\n      {pair.candidate.media}")
