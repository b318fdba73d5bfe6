"""`genrun logs`."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genrun.runner.cli.base import Verb, complete_runs, runs_option
from genrun.runner.cli.output import put, say
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder

POLL_S = 0.5
QUEUE_POLL_S = 10.0
_UP = re.compile(r"\x1b\[\d*A")


@click.command(
    cls=Verb,
    examples=(
        "genrun logs",
        "genrun logs demo -f",
        "genrun logs 3f9c -f",
        "genrun logs demo 3f9c",
        "genrun logs --rank 1",
    ),
)
@click.argument("names", nargs=-1, metavar="[RUN] [ITEM]", shell_complete=complete_runs)
@click.option("--rank", type=click.IntRange(min=0), help="Only the log of this rank.")
@click.option("-n", "--lines", type=click.IntRange(min=0), help="Only the last lines of each log, so many of them.")
@click.option("-f", "--follow", is_flag=True, help="Go on as the workers write, until they end.")
@runs_option
def logs(names: tuple[str, ...], rank: int | None, lines: int | None, follow: bool, base: Path) -> None:
    """Print what the workers of a run wrote.

    Without ITEM, the logs of the newest launch; with the first digits of an item's id, what was written about it.
    """
    folder, item = _find(names, base)
    if item is not None:
        _print_item(folder, item, rank, lines, follow=follow)
        return
    launches = sorted((path for path in folder.logs.glob("*") if path.is_dir()), key=_age)
    if not launches:
        raise UsageError(f"{folder.path}: has no logs: nothing was launched.", remedy="genrun retry starts workers.")
    tails = _Tails(launches[-1], rank, lines)
    tails.print_new()
    end = _End(folder)
    while follow and not end.is_there(launches[-1].name):
        time.sleep(POLL_S)
        tails.print_new()


class _Tails:
    """The logs of one launch, printed as they grow: each piece under the name of its file."""

    def __init__(self, launch: Path, rank: int | None, lines: int | None) -> None:
        self._launch = launch
        self._rank = rank
        self._lines = lines
        self._read: dict[Path, int] = {}
        self._last: Path | None = None

    def print_new(self) -> None:
        """Print what was written since the last time."""
        for path in log_files(self._launch, self._rank):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                text = file.read()
            if not text:
                continue
            self._read[path] = self._read.get(path, 0) + len(text)
            if path != self._last:
                say(f"==> {path} <==")
                self._last = path
            written = as_it_stands(text.decode(errors="replace").removesuffix("\n")).split("\n")
            put("\n".join(written if self._lines is None else written[len(written) - self._lines :]))
        # What is written from now on is new, and shown whole.
        self._lines = None


class _End:
    """The end of the work on a run; asks a queue no more often than every ten seconds."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._asked = float("-inf")
        self._is_over = False

    def is_there(self, launch: str) -> bool:
        """Tell whether the workers of a launch have ended, so that their logs grow no more."""
        from genrun.runner.launch.jobs import is_over
        from genrun.runner.store.order import Order

        is_watched = Order.load(self._folder, launch).launcher is not None
        if is_watched or time.monotonic() - self._asked >= QUEUE_POLL_S:
            self._is_over = is_over(self._folder, launch, os.environ)
            self._asked = time.monotonic()
        return self._is_over


def as_it_stands(text: str) -> str:
    r"""Return a log's text as a terminal would leave it: of a line that was written over, by `\r`, only the last state."""
    lines = (line.rstrip("\r") for line in _UP.sub("", text).split("\n"))
    return "\n".join(line[line.rfind("\r") + 1 :] for line in lines)


def log_files(launch: Path, rank: int | None) -> list[Path]:
    """Return the logs of a launch, of all ranks or of one; its tasks in the order of their numbers."""
    pattern = "*.log" if rank is None else f"rank-{rank}.log"
    found = [path for path in (*launch.glob(pattern), *launch.glob(f"*/{pattern}")) if path.is_file()]
    return sorted(found, key=lambda path: [int(part) if part.isdigit() else part for part in _parts(launch, path)])


def _parts(launch: Path, path: Path) -> list[str]:
    return re.split(r"(\d+)", path.relative_to(launch).as_posix())


def _find(names: tuple[str, ...], base: Path) -> tuple[RunFolder, str | None]:
    """Tell runs from items: two names are both, one is a run if there is such a run."""
    from genrun.runner.api.state import find_item
    from genrun.runner.store.runs import resolve

    if len(names) > 2:
        raise UsageError(f"{len(names)} names given.", remedy="At most a run and an item: genrun logs RUN ITEM.")
    if len(names) == 2:
        folder = resolve(names[0], base)
        return folder, find_item(folder.items(), names[1]).id
    try:
        return resolve(names[0] if names else None, base), None
    except UsageError:
        if not names:
            raise
        folder = resolve(None, base)
        found = [item.id for item in folder.items() if item.id.startswith(names[0].lower())]
        if len(found) != 1:
            raise
        return folder, found[0]


def _print_item(folder: RunFolder, item_id: str, rank: int | None, lines: int | None, *, follow: bool) -> None:
    """Print what any rank of any launch wrote about an item; on demand until the item is finished."""
    shown: dict[Path, int] = {}
    _print_sections(folder, item_id, rank, shown, lines)
    end = _End(folder)
    launch = max(folder.logs.glob("*/order.json"), key=_age, default=None)
    while follow and launch and not _is_finished(folder, item_id) and not end.is_there(launch.parent.name):
        time.sleep(POLL_S)
        _print_sections(folder, item_id, rank, shown)
    if follow:
        _print_sections(folder, item_id, rank, shown)
    if not shown:
        say(f"{item_id}: no log mentions it.")


def _print_sections(
    folder: RunFolder, item_id: str, rank: int | None, shown: dict[Path, int], count: int | None = None
) -> None:
    """Print the lines about an item that were not printed yet; `shown` counts them by file."""
    from genrun.runner.worker.rank import section_of

    launches = sorted((path for path in folder.logs.glob("*") if path.is_dir()), key=_age)
    for path in (path for launch in launches for path in log_files(launch, rank)):
        if item_id.encode() not in path.read_bytes():
            continue
        text = path.read_bytes().decode(errors="replace").removesuffix("\n")
        lines = section_of(as_it_stands(text).split("\n"), item_id)
        new = lines[shown.get(path, 0) :]
        if new:
            say(f"==> {path} <==")
            put("\n".join(new if count is None else new[len(new) - count :]))
            shown[path] = len(lines)


def _is_finished(folder: RunFolder, item_id: str) -> bool:
    record = folder.record(item_id)
    return record is not None and not (folder.leases / item_id).exists()


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns
