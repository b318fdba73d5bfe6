"""`genrun score`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.arguments import run_argument
from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import fits, json_option, one_line, progress_bar, put_json, put_table, say
from genrun.runner.errors import UsageError
from genrun.runner.notes import group_notes

if TYPE_CHECKING:
    from genrun.runner.report.sections.summary import SummaryTable
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.records import Score

SHOWN_REASONS = 10
LESS_NEEDED = ("median", "max", "worst block", "NFE")
"""Columns that a narrow terminal does without, the first of them first."""

LISTS = ("dimensions",)
"""Options that are lists: `--set vbench.dimensions=color,scene`."""


@click.command(
    cls=Verb,
    examples=(
        "genrun score",
        "genrun score demo --metrics latent_rmse,psnr",
        "genrun score demo --metrics clip_score --set clip_score.checkpoint=./clip",
        "genrun score runs/demo/latest --shard 2/8",
        "genrun score demo --latex table.tex",
        "genrun score --list",
    ),
)
@run_argument
@click.option("--metrics", metavar="A,B", default="", help="Only these metrics. Default: those that the job names.")
@click.option("--set", "sets", metavar="METRIC.OPTION=VALUE", multiple=True, help="An option, over the job's.")
@click.option("--shard", metavar="I/N", default="", help="One of N parts of the run. Default: this rank's, if any.")
@click.option(
    "--latex", "latex_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the table as LaTeX here."
)
@click.option("--list", "list_all", is_flag=True, help="List the metrics, what they need, and their options.")
@json_option
def score(
    run: str | None,
    base: Path,
    metrics: str,
    sets: tuple[str, ...],
    shard: str,
    latex_file: Path | None,
    list_all: bool,
    as_json: bool,
) -> None:
    """Score the items of a run.

    RUN is a run folder, a job's name (its latest run), or nothing (the run submitted last). What was scored before is
    kept unless its files have changed; what cannot be scored is reported with the reason. Several processes may score
    one run, each its shard: ranks of torchrun and tasks of srun take theirs by themselves.
    """
    if list_all:
        from genrun.runner.cli.lists import put_metrics

        put_metrics(as_json)
        return
    from genrun.runner.api import results
    from genrun.runner.api.finding import run_folder
    from genrun.runner.store.files import atomic_write

    folder = run_folder(run, base)
    names = [name.strip() for name in metrics.split(",") if name.strip()]
    with progress_bar("scoring") as listener:
        rows = results.score(folder, names, options=_options(sets), shard=shard, listener=listener)
    if as_json:
        put_json([asdict(row) for row in rows])
    else:
        _show(folder, rows)
    if latex_file is not None:
        atomic_write(latex_file, _latex(results.tabulate(folder, rows)).encode("utf-8", "backslashreplace"))


def _latex(table: SummaryTable) -> str:
    """Return a row for each cell of the matrix and a column for each number, the best of a column in bold."""
    from genrun.runner.latex import table as latex_table

    titles = [column.title for column in table.columns]
    rows = [(*row.labels, *(cell.text for cell in row.cells)) for row in table.rows]
    first = len(table.axes)
    best = {
        (number, first + at)
        for number, row in enumerate(table.rows)
        for at, cell in enumerate(row.cells)
        if cell.is_best
    }
    caption = "Means over prompts and seeds; the best of each column in bold."
    return latex_table([*table.axes, *titles], rows, right=titles, caption=caption, bold=best)


def _options(sets: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return options of metrics by metric, from texts such as `clip_score.frames=16`."""
    from genrun.runner.job.yaml import retype

    found: dict[str, dict[str, Any]] = {}
    for text in sets:
        path, equals, value = text.partition("=")
        metric, dot, option = path.strip().partition(".")
        if not (equals and dot and metric and option):
            raise UsageError(f"--set {text}: wanted METRIC.OPTION=VALUE, such as clip_score.frames=16.")
        typed = retype(value)
        found.setdefault(metric, {})[option] = typed.split(",") if option in LISTS and isinstance(typed, str) else typed
    return found


def _show(folder: RunFolder, scores: list[Score]) -> None:
    from genrun.runner.api.results import tabulate
    from genrun.runner.score.samples import IS_REFERENCE

    table = tabulate(folder, scores)
    titles = [column.title for column in table.columns]
    columns = [*table.axes, *titles]
    cells = [
        [*row.labels, *(" ".join([cell.text, *cell.note.split("\n")]).rstrip() for cell in row.cells)]
        for row in table.rows
    ]
    left_out = []
    if not fits(columns, cells):
        left_out.append("intervals")
        cells = [[*row.labels, *(cell.text for cell in row.cells)] for row in table.rows]
    left_out += put_table(columns, cells, right=titles, drop=(*LESS_NEEDED, *reversed(titles[1:])))
    if left_out:
        say(f"Left out for want of room: {', '.join(left_out)}. A wider terminal, or genrun report, shows them.")
    reasons = Counter(
        (row.metric, row.reason) for row in scores if row.value is None and row.reason != IS_REFERENCE
    ).most_common()
    for (metric, reason), count in reasons[:SHOWN_REASONS]:
        say(f"{metric}: {count} {'item' if count == 1 else 'items'} not scored: {one_line(str(reason), 200)}")
    if len(reasons) > SHOWN_REASONS:
        say(f"... and {len(reasons) - SHOWN_REASONS} more reasons: genrun score --json lists all.")
    for notes in group_notes(folder.records().values()):
        say(str(notes))
