"""Output of verbs: results on stdout, talk on stderr; rich on a terminal, plain text elsewhere, JSON when asked for."""

from __future__ import annotations

import enum
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.api import RUNS
from genrun.runner.api.calls import Listener, Opened, Silent

if TYPE_CHECKING:
    from rich.console import Console

    from genrun.runner.job.plan import WorkItem
    from genrun.runner.progress import Display
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.records import Record
    from genrun.runner.store.results import Tally

_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


STDOUT = Path("-")
"""The name that stands for stdout where an option names a file of text."""

GAP = 2
"""Spaces between two columns of a table."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
"""Decorator that gives a verb the flag `--json`, as the argument `as_json`."""


class Talk(enum.IntEnum):
    """Levels of what is written to stderr: errors alone, what is being done and why, or that of each item."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


_talk: list[Talk] = []
"""The level that -q or -v asked for, alone; empty before that is known, and where neither was given."""


def set_talk(talk: Talk | None) -> None:
    """Choose what is written to stderr from now on; None for the user's default."""
    _talk[:] = [] if talk is None else [talk]


def talk() -> Talk:
    """Return what is to be written: as -q and -v say, else the user's default."""
    if not _talk:
        from genrun.runner.api.config import read_config

        set_talk(Talk[read_config().talk.upper()])
    return _talk[0]


def say(text: str) -> None:
    """Write a line of talk to stderr, unless it is to be quiet."""
    if talk() > Talk.QUIET:
        complain(text)


def complain(text: str) -> None:
    """Write an error to stderr."""
    click.echo(printable(text), err=True)


def put(text: str) -> None:
    """Write a line of result to stdout: an id, a path."""
    click.echo(printable(text))


def put_file(path: Path, text: str) -> None:
    """Write a text to a file, or as a result to `STDOUT`.

    Raises:
        StoreError: the file cannot be written.
    """
    from genrun.runner.store.files import atomic_write

    if path == STDOUT:
        put(text.removesuffix("\n"))
    else:
        atomic_write(path, text.encode("utf-8", "backslashreplace"))


def is_printed(as_json: bool, **files: Path | None) -> bool:
    """Tell whether one of the files goes to stdout, so that nothing else does.

    Args:
        as_json: whether JSON does.
        files: option -> what it names.

    Raises:
        UsageError: several would.
    """
    from genrun.runner.errors import UsageError

    printed = [f"--{option} -" for option, path in files.items() if path == STDOUT]
    if len(printed) + as_json > 1 and printed:
        every = " and ".join([*printed, *["--json"] * as_json])
        raise UsageError(f"{every}: only one can go to stdout.", remedy="Name files for the others.")
    return bool(printed)


def put_json(value: Any, *, indent: int | None = None) -> None:
    """Write `value` to stdout as one JSON document, non-ASCII text escaped so that any terminal can hold it."""
    click.echo(json.dumps(value, indent=indent, allow_nan=False))


def run_json(folder: RunFolder, tally: Tally, jobs: Sequence[str] = ()) -> dict[str, Any]:
    """Return a run's path, its numbers of items, and its jobs: the keys that `--json` of several verbs begins with."""
    return {
        "run": str(folder.path),
        "items": tally.items,
        "done": tally.done,
        "failed": tally.failed,
        "pending": tally.pending,
        "jobs": list(jobs),
    }


def name_of(folder: RunFolder) -> str:
    """Return what a command of this folder names a run by: its job's name for the latest, else its path."""
    import shlex

    from genrun.runner.store.runs import LATEST

    job_folder = folder.path.parent
    is_latest = os.path.realpath(job_folder / LATEST) == str(folder.path) and job_folder.parent == Path(RUNS).resolve()
    return shlex.quote(job_folder.name if is_latest else str(folder.path))


def unscored(folder: RunFolder) -> list[str]:
    """Return the metrics that a run's job names and that nobody has measured."""
    from genrun.runner.store.scores import metrics_of, score_files

    scored = {path.stem for path in score_files(folder)}
    return [name for name in metrics_of(folder.job_document()) if name not in scored]


def say_gains(folder: RunFolder) -> None:
    """Say what each solver of a run costs in model calls and seconds, and what it gains on the sequential sampler."""
    from genrun.runner.score.summary import gains, summarize

    records, items = folder.records(), folder.items()
    groups = summarize(items, records, ())
    for line in gains(groups):
        say(f"  {line}")
    alone = all(record.mesh.get("time", 1) == 1 for record in records.values())
    if alone and any(group.rounds and group.nfe and group.nfe.mean > group.rounds.mean for group in groups):
        say(f"  {sharing_advice(items)}")


def sharing_advice(items: Iterable[WorkItem]) -> str:
    """Say how ranks would share the rounds of items: among four, or as many as a round has calls."""
    most = max((k for item in items if isinstance(k := item.solver.get("workers"), int)), default=1)
    ranks = min(most, 4)
    start = "One rank makes the calls of a round one after the other"
    return f"{start}; `parallel: {{time: {ranks}}}` shares them among {ranks}."


def notes_json(records: Iterable[Record]) -> dict[str, Any]:
    """Return the key `notes` of `--json`: kind of note -> done items that have one; no key where none has."""
    from genrun.runner.notes import count_notes

    found = count_notes(records)
    return {"notes": found} if found else {}


def put_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Iterable[str] = (),
    drop: Iterable[str] = (),
) -> list[str]:
    """Write a table to stdout: ruled by rich on a terminal, aligned with spaces elsewhere.

    Args:
        columns: headings.
        rows: cells, as many as there are columns; shown by `str` on one line, with control characters escaped.
        right: the columns to align to the right (numbers).
        drop: columns to leave out where a terminal is too narrow for all, in this order.

    Returns:
        The columns that were left out.
    """
    cells = [[printable(str(cell)).replace("\n", "\\n").replace("\t", "\\t") for cell in row] for row in rows]
    dropped = []
    for name in drop if on_terminal() else ():
        if fits(columns, cells):
            break
        if name in columns:
            place = list(columns).index(name)
            columns, *cells = [[*line[:place], *line[place + 1 :]] for line in (columns, *cells)]
            dropped.append(name)
    on_right = [column in set(right) for column in columns]
    if on_terminal():
        _rich_table(columns, cells, on_right)
    else:
        _plain_table(columns, cells, on_right)
    return dropped


def fits(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Tell whether a table is as narrow as the terminal; always elsewhere, where lines may be of any length."""
    if not on_terminal():
        return True
    from rich.cells import cell_len

    widths = (max(cell_len(line[index]) for line in (columns, *rows)) for index in range(len(columns)))
    return sum(width + GAP for width in widths) - GAP <= console(err=False).width


def on_terminal(*, err: bool = False) -> bool:
    """Tell whether stdout (or stderr) is a terminal."""
    return (sys.stderr if err else sys.stdout).isatty()


def console(*, err: bool = True) -> Console:
    """Return a rich console on stderr (or stdout). Wrap foreign text in `rich.text.Text`: markup is off."""
    from rich.console import Console

    return Console(stderr=err, markup=False, highlight=False, emoji=False)


class Terminal(Listener):
    """Writes what an operation tells to stderr, its results to stdout, and keeps the submission that it opened."""

    def __init__(self, *, results: bool = True) -> None:
        self.submission: Opened | None = None
        self._prints_results = results

    def say(self, text: str) -> None:
        """Write a line of talk."""
        say(text)

    def result(self, text: str) -> None:
        """Write a line of result, unless the verb prints JSON in the end."""
        if self._prints_results:
            put(text)

    def display(self) -> Display:
        """Return a bar on a terminal, and lines now and then elsewhere."""
        from genrun.runner.progress import PlainDisplay, RichDisplay

        if talk() is Talk.QUIET:
            return Silent()
        if talk() is Talk.VERBOSE:
            return PlainDisplay(say, 0.0)
        return RichDisplay() if on_terminal(err=True) else PlainDisplay(say)

    def opened(self, submission: Opened) -> None:
        """Keep the submission, whose run is printed even if the work on it fails."""
        self.submission = submission


@contextmanager
def progress_bar(title: str) -> Iterator[Listener]:
    """Show the number of processed items as a bar on a terminal; elsewhere show messages only."""
    if not on_terminal(err=True) or talk() is Talk.QUIET:
        yield Terminal()
        return
    from rich.progress import Progress

    with Progress(console=console(), transient=True) as bars:
        task = bars.add_task(title, total=None)

        class Bar(Terminal):
            def progress(self, done: int, total: int) -> None:
                bars.update(task, completed=done, total=total)

        yield Bar()


def printable(text: str) -> str:
    r"""Return `text` safe to show, since prompts and paths are hostile: control characters are escaped (`\x1b`).

    Line breaks and tabs stay. Escaped too are characters that change the direction or the lines of what follows, and halves
    of surrogate pairs, which no terminal can be sent.
    """
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def one_line(text: str, width: int = 60) -> str:
    """Return `text` on one line of at most `width` characters, line breaks escaped and the rest cut with an ellipsis."""
    line = printable(text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t"))
    return line if len(line) <= width else line[: width - 1] + "…"


def _rich_table(columns: Sequence[str], rows: list[list[str]], on_right: list[bool]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column, right in zip(columns, on_right, strict=True):
        table.add_column(Text(column), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console(err=False).print(table)


def _plain_table(columns: Sequence[str], rows: list[list[str]], on_right: list[bool]) -> None:
    lines = [list(columns), *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    for line in lines:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, on_right, strict=True)
        ]
        click.echo("  ".join(padded).rstrip())
