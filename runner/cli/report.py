"""`genrun report`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genrun.runner.cli.arguments import run_argument
from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import json_option, name_of, put, put_json, say, say_gains, unscored
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from genrun.runner.report.live import LiveReport
    from genrun.runner.report.serve import ReportServer
    from genrun.runner.store.folder import RunFolder


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
    from genrun.runner.api.finding import run_folder
    from genrun.runner.report.live import LiveReport

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
