"""How verbs write: results on stdout, talk on stderr; rich on a terminal, plain text elsewhere, JSON when asked for."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import click

if TYPE_CHECKING:
    from rich.console import Console

_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class Progress(Protocol):
    """Is told how many items are done, of how many."""

    def __call__(self, done: int, total: int, /) -> None:
        """Show it."""
        ...


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
    """Whether stdout (or stderr) is a terminal."""
    return (sys.stderr if err else sys.stdout).isatty()


def console(*, err: bool = True) -> Console:
    """A rich console on stderr (or stdout). Wrap foreign text in `rich.text.Text`: markup is off."""
    from rich.console import Console

    return Console(stderr=err, markup=False, highlight=False, emoji=False)


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Show a bar on a terminal; elsewhere nothing, for verbs that print their result at once."""
    if not on_terminal(err=True):
        yield lambda done, total: None
        return
    from rich.progress import Progress as Bars

    with Bars(console=console(), transient=True) as bars:
        task = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


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
