"""Measure the golden tables again: `python -m tests.golden.renew [MODEL]...`, or `make golden`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.golden.tables import MODELS, PARALLEL, Golden, Row, read, write


def main(models: list[str]) -> None:
    """Renew the tables of some models, or of all, and say what has changed."""
    for model in models or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            golden = Golden(model, Path(folder) / "bench")
            rows = [row for solver in PARALLEL for row in golden.rows(solver)]
            golden.close()
        before = known(model)
        write(model, golden.settings, rows)
        for row in rows:
            old = before.get((row.solver, row.workers))
            print(f"{model} {row.solver} K={row.workers}: {words(row)}" + (f" (was {words(old)})" if old else ""))


def known(model: str) -> dict[tuple[str, int], Row]:
    """The rows of the table that is there, if there is one."""
    try:
        return read(model)[1]
    except FileNotFoundError:
        return {}


def words(row: Row) -> str:
    """A row in short."""
    return f"{row.mean_rounds:g} rounds, {row.mean_nfe:g} NFE, RMSE {row.mean_rmse:.3g}"


if __name__ == "__main__":
    main(sys.argv[1:])
