"""Output of verbs: results on stdout, talk on stderr; rich on a terminal, plain text elsewhere, JSON when asked for."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from genrun.runner.api.listener import Listener, Opened

if TYPE_CHECKING:
    from rich.console import Console

    from genrun.runner.progress import Display
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.records import Record
    from genrun.runner.store.results import Tally

_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
"""Decorator that gives a verb the flag `--json`, as the argument `as_json`."""


def say(text: str) -> None:
    """Write a line of talk to stderr."""
    click.echo(printable(text), err=True)


def put(text: str) -> None:
    """Write a line of result to stdout: an id, a path."""
    click.echo(printable(text))


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


def notes_json(records: Iterable[Record]) -> dict[str, Any]:
    """Return the key `notes` of `--json`: kind of note -> done items that have one; no key where none has."""
    from genrun.runner.notes import count_notes

    found = count_notes(records)
    return {"notes": found} if found else {}


def put_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()) -> None:
    """Write a table to stdout: ruled by rich on a terminal, aligned with spaces elsewhere.

    Args:
        columns: headings.
        rows: cells, as many as there are columns; shown by `str`, with control characters escaped.
        right: the columns to align to the right (numbers).
    """
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    on_right = [column in set(right) for column in columns]
    if on_terminal():
        _rich_table(columns, cells, on_right)
    else:
        _plain_table(columns, cells, on_right)


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

        return RichDisplay() if on_terminal(err=True) else PlainDisplay(say)

    def opened(self, submission: Opened) -> None:
        """Keep the submission, whose run is printed even if the work on it fails."""
        self.submission = submission


@contextmanager
def progress_bar(title: str) -> Iterator[Listener]:
    """Show the number of processed items as a bar on a terminal; elsewhere show messages only."""
    if not on_terminal(err=True):
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
