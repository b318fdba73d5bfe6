"""`genrun score`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import console, json_option, on_terminal, one_line, put_json, put_table, say
from genrun.runner.cli.runs import run_argument

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.records import Score

SHOWN_REASONS = 10


class Progress(Protocol):
    """What is told how many items were looked at, of how many."""

    def __call__(self, done: int, total: int, /) -> None:
        """Show it."""
        ...


@click.command(
    cls=Verb,
    examples=("genrun score", "genrun score demo --metrics latent_rmse,psnr", "genrun score runs/demo/latest --json"),
)
@run_argument
@click.option("--metrics", metavar="A,B", default="", help="Only these metrics. Default: those that the job names.")
@json_option
def score(run: str | None, base: Path, metrics: str, as_json: bool) -> None:
    """Score the items of a run.

    RUN is a run folder, a job's name (its latest run), or nothing (the run submitted last). What was scored before is
    kept unless its files have changed; what cannot be scored is reported with the reason.
    """
    from genrun.runner.score import score_run, wanted_metrics
    from genrun.runner.store.runs import resolve

    folder = resolve(run, base)
    chosen = wanted_metrics(folder, [name.strip() for name in metrics.split(",") if name.strip()])
    with _progress() as progress:
        rows = score_run(folder, chosen, progress)
    if as_json:
        put_json([asdict(row) for row in rows])
    else:
        _show(folder, rows)


def _show(folder: RunFolder, scores: list[Score]) -> None:
    from genrun.runner.report.table import build_table, headings, share_metrics
    from genrun.runner.score import IS_REFERENCE
    from genrun.runner.summary import summarize

    metrics = headings(scores)
    groups = summarize(folder.items(), folder.records(), scores, share_metrics(metrics))
    table = build_table(groups, metrics)
    titles = [column.title for column in table.columns]
    cells = [
        [*row.labels, *(" ".join([cell.text, *cell.note.split("\n")]).rstrip() for cell in row.cells)]
        for row in table.rows
    ]
    put_table([*table.axes, *titles], cells, right=titles)
    reasons = Counter(
        (row.metric, row.reason) for row in scores if row.value is None and row.reason != IS_REFERENCE
    ).most_common()
    for (metric, reason), count in reasons[:SHOWN_REASONS]:
        say(f"{metric}: {count} {'item' if count == 1 else 'items'} not scored: {one_line(str(reason), 200)}")
    if len(reasons) > SHOWN_REASONS:
        say(f"... and {len(reasons) - SHOWN_REASONS} more reasons: genrun score --json lists all.")


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal; elsewhere nothing, since scoring prints its result at once."""
    if not on_terminal(err=True):
        yield lambda done, total: None
        return
    from rich.progress import Progress as Bars

    with Bars(console=console(), transient=True) as bars:
        task = bars.add_task("scoring", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
