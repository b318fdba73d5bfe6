"""The command line; `python -m tests.bench.papers --help`."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

import torch

from tests.bench.papers.measure import Lab
from tests.bench.papers.tables import TABLES, Asked

PAGE = Path(__file__).parents[3] / "docs" / "papers.md"


def main() -> None:
    """Measure the tables, and write each into the page as soon as it is there."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.papers", description="The tables of docs/papers.md.")
    parser.add_argument("--only", default=",".join(TABLES), metavar="A,B", help=f"of {', '.join(TABLES)}")
    parser.add_argument("--samples", type=int, default=4, help="of each setting (default: 4)")
    parser.add_argument("--zoo", type=Path, default=Path("runs/.zoo"), help="folder of the models (default: runs/.zoo)")
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="a clone of github.com/Jianrong-Lu/ParaSolver")
    parser.add_argument("--page", type=Path, default=PAGE, help="whose tables are written (default: docs/papers.md)")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    names = chosen.only.split(",")
    if unknown := [name for name in names if name not in TABLES]:
        parser.error(f"--only: no table {', '.join(unknown)}; there are {', '.join(TABLES)}")
    torch.set_num_threads(chosen.threads)
    asked = Asked(Lab(chosen.zoo), chosen.samples, chosen.peers)
    for name in (each for each in TABLES if each in names):
        started = time.monotonic()
        table = TABLES[name](asked)
        print(f"## {name}, {time.monotonic() - started:.0f} s\n\n{table}\n", flush=True)
        chosen.page.write_text(filled(chosen.page.read_text(encoding="utf-8"), name, table), encoding="utf-8")


def filled(page: str, name: str, table: str) -> str:
    """Return a page with a table between its comments; raises ValueError where the page has no such comments."""
    block = re.compile(rf"(<!-- measured: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not block.search(page):
        raise ValueError(f"the page has no `<!-- measured: {name} -->`")
    return block.sub(lambda found: f"{found[1]}\n{table}\n\n{found[2]}", page)


if __name__ == "__main__":
    main()
