"""`genrun score`, `genrun report` and `genrun export`: numbers, a page, and files to pass on."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.cli.base import OutputFile, OutputFolder, Verb, run_argument
from genrun.runner.cli.output import (
    fits,
    is_printed,
    json_option,
    name_of,
    one_line,
    progress_bar,
    put,
    put_file,
    put_json,
    put_table,
    say,
    say_gains,
    unscored,
)
from genrun.runner.errors import UsageError
from genrun.runner.notes import group_notes

if TYPE_CHECKING:
    from genrun.runner.report.build import LiveReport
    from genrun.runner.report.sections.summary import SummaryTable
    from genrun.runner.report.serve import ReportServer
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.records import Score


SHOWN_REASONS, SHOWN_ITEMS = 10, 3
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
@click.option("--latex", "latex_file", type=OutputFile(), help="Write the table as LaTeX here; - prints it.")
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
    from genrun.runner.api.state import run_folder

    is_taken = is_printed(as_json, latex=latex_file)
    folder = run_folder(run, base)
    names = [name.strip() for name in metrics.split(",") if name.strip()]
    with progress_bar("scoring") as listener:
        rows = results.score(folder, names, options=_options(sets), shard=shard, listener=listener)
    if as_json:
        put_json([asdict(row) for row in rows])
    else:
        if not is_taken:
            _put_scores(results.tabulate(folder, rows))
        _say_reasons(folder, rows)
    if latex_file is not None:
        put_file(latex_file, _latex(results.tabulate(folder, rows)))


def _latex(table: SummaryTable) -> str:
    """Return a row for each cell of the matrix and a column for each number, the best of a column in bold."""
    from genrun.runner.numbers import table as latex_table

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


def _put_scores(table: SummaryTable) -> None:
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


def _say_reasons(folder: RunFolder, scores: list[Score]) -> None:
    from genrun.runner.score.metrics import IS_REFERENCE

    reasons = Counter(
        (row.metric, row.reason) for row in scores if row.value is None and row.reason != IS_REFERENCE
    ).most_common()
    for (metric, reason), count in reasons[:SHOWN_REASONS]:
        say(f"{metric}: {count} {'item' if count == 1 else 'items'} not scored: {one_line(str(reason), 200)}")
    if len(reasons) > SHOWN_REASONS:
        say(f"... and {len(reasons) - SHOWN_REASONS} more reasons: genrun score --json lists all.")
    for notes in group_notes(folder.records().values()):
        say(str(notes))


@click.command(
    cls=Verb,
    examples=(
        "genrun report",
        "genrun report demo --standalone",
        "genrun report demo --serve --port 8000",
        "genrun report demo --serve --live",
        "genrun report demo --pdf demo.pdf",
        "genrun report demo --json",
    ),
)
@run_argument
@click.option("--standalone", is_flag=True, help="Copy the media into the report, so that the folder can be moved.")
@click.option("--serve", is_flag=True, help="Show the page at an address of this machine until Ctrl-C.")
@click.option(
    "--live", is_flag=True, help="With --serve: write the page again while the run goes on; it reloads itself."
)
@click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    help="With --serve: the port, as for a tunnel. Default: any free one.",
)
@click.option(
    "--pdf",
    metavar="[FILE]",
    is_flag=False,
    flag_value="",
    help="Print the page to a PDF, too, with Chromium. Default: report.pdf beside the page.",
)
@json_option
def report(
    run: str | None,
    base: Path,
    standalone: bool,
    serve: bool,
    live: bool,
    port: int | None,
    pdf: str | None,
    as_json: bool,
) -> None:
    """Write a static page: clips side by side, and numbers.

    RUN is a run folder, a job's name (its latest run), or nothing (the run submitted last). The page lies in the run's
    `report` folder, shows the scores that `genrun score` left, and needs no network. Its path is printed, then that
    of the PDF, and last its address, which only this machine can open: from elsewhere, ssh -L PORT:localhost:PORT HOST.
    """
    from genrun.runner.api import results
    from genrun.runner.api.state import run_folder
    from genrun.runner.report.build import LiveReport

    alone = [option for option, value in (("--port", port is not None), ("--live", live)) if value and not serve]
    if alone:
        raise UsageError(f"{alone[0]} belongs to --serve.")
    if live and standalone:
        raise UsageError(
            "--live does not go with --standalone.", remedy="Write the standalone report once the run is done."
        )
    if pdf and not pdf.lower().endswith(".pdf"):
        raise UsageError(f"--pdf {pdf}: not the name of a PDF.", remedy="RUN goes before --pdf, FILE ends in .pdf.")
    folder = run_folder(run, base)
    going = LiveReport(folder) if live else None
    server = _listen(folder.path, port or 0, going) if serve else None
    made = results.report(folder, standalone=standalone, pdf=False if pdf is None else pdf or True)
    found = {
        "report": str(made.path),
        **({} if made.pdf is None else {"pdf": str(made.pdf)}),
        **({} if server is None else {"url": server.url}),
    }
    if as_json:
        put_json({**found, "items": made.items, "failed": made.failed})
    else:
        for value in found.values():
            put(value)
    if server is None and not as_json:
        _say_what_next(folder, made.path)
    if server is not None:
        say("Only this machine can open it. Ctrl-C ends it.")
        with server:
            try:
                with going or contextlib.nullcontext():
                    server.serve_forever()
            except KeyboardInterrupt:
                say("Stopped.")


def _say_what_next(folder: RunFolder, page: Path) -> None:
    if missing := unscored(folder):
        name = name_of(folder)
        say(
            f"Not scored yet: {', '.join(missing)}. To have them on the page: genrun score {name}; genrun report {name}"
        )
    say_gains(folder)
    say(f"Open: {page.as_uri()}")


def _listen(run: Path, port: int, live: LiveReport | None) -> ReportServer:
    from genrun.runner.report.serve import ReportServer

    return ReportServer(run, port, live)


FORMATS = ("as-is", "gif", "webp", "webm", "frames", "none")
NAME = "{index:04}_{name}_{seed}_{cell}"


@click.command(
    cls=Verb,
    examples=(
        "genrun export demo --to ~/for-the-paper",
        "genrun export demo --to out --name '{solver}/{index:03}_{prompt}_{seed}' --sheet --csv",
        "genrun export demo --to gifs --format gif",
        "genrun export demo --to out --format none --csv",
    ),
)
@run_argument
@click.option("--to", type=OutputFolder(), required=True, help="The folder for the files.")
@click.option(
    "--name",
    metavar="TEMPLATE",
    default=NAME,
    show_default=True,
    help="File names: {index} {name} {prompt} {seed} {id} {solver} {model} {cell}, and each axis of the matrix.",
)
@click.option(
    "--format",
    "formats",
    metavar="LIST",
    default="as-is",
    show_default=True,
    help=f"What media become, separated by commas: {', '.join(FORMATS)}.",
)
@click.option("--sheet", is_flag=True, help="Draw contact sheets: a row for each prompt, a column for each cell.")
@click.option("--csv", is_flag=True, help="Write results.csv: prompts, costs and every score, a row for each item.")
@json_option
def export(
    run: str | None, base: Path, to: Path, name: str, formats: str, sheet: bool, csv: bool, as_json: bool
) -> None:
    """Copy results to a folder, under names that say what they are.

    RUN is a run folder, a job's name (its latest run), or nothing (the run submitted last). The run stays as it is. The
    same command again brings the folder up to date; files that no export wrote are never replaced. Prints the folder.
    """
    from genrun.runner.api import results

    chosen = tuple(dict.fromkeys(each.strip() for each in formats.split(",")))
    if "none" in chosen and len(chosen) > 1:
        raise UsageError("--format none: goes with no other.")
    chosen = () if chosen == ("none",) else chosen
    with progress_bar("exporting") as listener:
        made = results.export(run, to, name=name, formats=chosen, sheet=sheet, csv=csv, runs=base, listener=listener)
    files = sum(len(each) for each in made.files.values()) + len(made.others)
    for why, count in Counter(made.left_out.values()).most_common():
        ids = [item_id for item_id, reason in made.left_out.items() if reason == why]
        say(f"{count} left out: {why}. {', '.join(ids[:SHOWN_ITEMS])}{', ...' * (count > SHOWN_ITEMS)}")
    if as_json:
        put_json(
            {
                "to": str(made.folder.absolute()),
                "files": made.files,
                "others": made.others,
                "left_out": made.left_out,
            }
        )
    else:
        say(f"{len(made.files)} items, {files} files.")
        put(str(made.folder.absolute()))
