"""`genrun logs`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genrun.runner.cli.base import Verb
from genrun.runner.cli.output import put, say
from genrun.runner.cli.runs import find_item, runs_option
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder

POLL_S = 0.5


@click.command(
    cls=Verb,
    examples=(
        "genrun logs",
        "genrun logs demo -f",
        "genrun logs 3f9c",
        "genrun logs demo 3f9c",
        "genrun logs --rank 1",
    ),
)
@click.argument("names", nargs=-1, metavar="[RUN] [ITEM]")
@click.option("--rank", type=click.IntRange(min=0), help="Only the log of this rank.")
@click.option("-f", "--follow", is_flag=True, help="Go on as the workers write, until they end.")
@runs_option
def logs(names: tuple[str, ...], rank: int | None, follow: bool, base: Path) -> None:
    """Print what the workers of a run wrote.

    Without ITEM, the logs of the newest launch; with the first digits of an item's id, what was written about it.
    """
    folder, item = _find(names, base)
    if item is not None:
        _print_item(folder, item, rank)
        return
    launches = sorted((path for path in folder.logs.glob("*") if path.is_dir()), key=_age)
    if not launches:
        raise UsageError(f"{folder.path}: has no logs: nothing was launched.", remedy="genrun retry starts workers.")
    tails = _Tails(launches[-1], rank)
    tails.print_new()
    while follow and not _is_over(folder, launches[-1].name):
        time.sleep(POLL_S)
        tails.print_new()


class _Tails:
    """The logs of one launch, printed as they grow: each piece under the name of its file."""

    def __init__(self, launch: Path, rank: int | None) -> None:
        self._launch = launch
        self._pattern = "*.log" if rank is None else f"rank-{rank}.log"
        self._read: dict[Path, int] = {}
        self._last: Path | None = None

    def print_new(self) -> None:
        """Print what was written since the last time."""
        for path in sorted(self._launch.glob(self._pattern)):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                text = file.read()
            if not text:
                continue
            self._read[path] = self._read.get(path, 0) + len(text)
            if path != self._last:
                say(f"==> {path} <==")
                self._last = path
            put(text.decode(errors="replace").removesuffix("\n"))


def _find(names: tuple[str, ...], base: Path) -> tuple[RunFolder, str | None]:
    """Tell runs from items: two names are both, one is a run if there is such a run."""
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


def _print_item(folder: RunFolder, item_id: str, rank: int | None) -> None:
    from genrun.runner.work.worker import section_of

    pattern = "*.log" if rank is None else f"rank-{rank}.log"
    printed = False
    for path in sorted(folder.logs.glob(f"*/{pattern}"), key=_age):
        lines = section_of(path.read_text(encoding="utf-8", errors="replace").splitlines(), item_id)
        if lines:
            say(f"==> {path} <==")
            put("\n".join(lines))
            printed = True
    if not printed:
        say(f"{item_id}: no log mentions it.")


def _is_over(folder: RunFolder, job: str) -> bool:
    from genrun.runner.store.processes import is_gone
    from genrun.runner.work.order import Order

    order = Order.load(folder, job)
    return not order.launcher or is_gone(order.launcher) is not False


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns
