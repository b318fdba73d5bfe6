"""Tables of a bench's results, as rows, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from genrun.runner import latex
from genrun.runner.bench.folder import BenchFolder
from genrun.runner.bench.results import Crossing, PointResult, crossings

RESULT_COLUMNS = (
    "problem",
    "solver",
    "workers",
    "tolerance",
    "samples",
    "steps",
    "rounds",
    "nfe",
    "speedup",
    "rmse_mean",
    "rmse_median",
    "rmse_max",
    "worst_block",
    "skipped",
    "blocks",
    "saved",
    "rmse_added",
    "round_s",
    "round_ratio",
    "error",
)
CACHE_COLUMNS = ("problem", "solver", "K", "tolerance", "rounds", "NFE", "blocks", "saved", "RMSE", "added")
PARETO_COLUMNS = ("problem", "solver", "workers", "error", "rounds", "speedup", "state")


def write_tables(folder: BenchFolder, settings: Mapping[str, Any], results: Sequence[PointResult]) -> None:
    """Write results.csv, pareto.csv and results.json. Raises StoreError."""
    found = crossings(results)
    folder.write_file("results.csv", as_csv(RESULT_COLUMNS, result_rows(results)))
    folder.write_file("pareto.csv", as_csv(PARETO_COLUMNS, map(pareto_row, found)))
    folder.write_file("results.json", as_json(settings, results, found))


def write_latex(folder: BenchFolder, samples: int, results: Sequence[PointResult]) -> None:
    """Write pareto.tex: the rounds of each solver at equal error, with a column for each K. Raises StoreError."""
    columns, rows = grid_rows(crossings(results))
    caption = (
        f"Rounds, and N over rounds, at equal mean latent RMSE to the sequential sampler; {samples} samples a cell."
    )
    text = latex.table(columns, rows, right=columns[3:], caption=caption)
    folder.write_file("pareto.tex", text.encode("utf-8", "backslashreplace"))


def result_row(result: PointResult) -> dict[str, Any]:
    """Return one cell by the names of RESULT_COLUMNS; None where there is no number."""
    cell = result.cell
    row: dict[str, Any] = dict.fromkeys(RESULT_COLUMNS)
    row |= {"problem": cell.problem, "solver": cell.solver, "workers": cell.workers, "tolerance": cell.tolerance}
    row |= {"samples": len(result.samples), "steps": result.num_steps, "error": result.error or None}
    if result.samples:
        row |= {"rounds": result.rounds, "nfe": result.nfe, "speedup": result.speedup, "skipped": result.skipped}
        row |= {"rmse_mean": result.rmse, "rmse_median": result.rmse_median, "rmse_max": result.rmse_max}
        row |= {"worst_block": result.worst_block, "round_ratio": result.round_ratio}
        row["blocks"] = result.blocks or None
        row["round_s"] = result.elapsed_s / result.calls if result.calls else None
    return row


def result_rows(results: Sequence[PointResult]) -> list[dict[str, Any]]:
    """Return all cells, those with a cache compared with the same cell without one."""
    plain = {_without_cache(result): result for result in results if not result.cell.cache and result.samples}
    rows = []
    for result in results:
        row = result_row(result)
        if result.cell.cache and result.samples and result.blocks:
            same = plain.get(_without_cache(result))
            blocks = same.blocks if same is not None else _sequential_blocks(result, results)
            row["saved"] = blocks / result.blocks if blocks else None
            row["rmse_added"] = result.rmse - (0.0 if same is None else same.rmse)
        rows.append(row)
    return rows


def _sequential_blocks(result: PointResult, results: Sequence[PointResult]) -> float | None:
    """Return the blocks of the sequential sampler, which is not among the cells: N times those of an evaluation."""
    for other in results:
        if other.samples and not other.cell.cache and other.cell.problem == result.cell.problem:
            return other.blocks / other.nfe * result.num_steps
    return None


def cache_rows(results: Sequence[PointResult]) -> list[list[str]]:
    """Return solver x cache by CACHE_COLUMNS, as ROPA's Table 3 does: what a cache saves, and the error that it adds."""
    return [_cache_row(row) for row in result_rows(results)]


def _cache_row(row: Mapping[str, Any]) -> list[str]:
    if row["error"]:
        start = [row["problem"], row["solver"], str(row["workers"]), "refused"]
        return start + [""] * (len(CACHE_COLUMNS) - len(start))
    tolerance = "" if row["tolerance"] is None else f"{row['tolerance']:g}"
    cells = [row["problem"], row["solver"], str(row["workers"]), tolerance, f"{row['rounds']:.1f}", f"{row['nfe']:.1f}"]
    saved = "" if row["saved"] is None else f"{row['saved']:.2f}x"
    added = "" if row["rmse_added"] is None else f"{row['rmse_added']:+.4f}"
    return [*cells, f"{row['blocks'] or 0:.0f}", saved, f"{row['rmse_mean']:.4f}", added]


def _without_cache(result: PointResult) -> tuple[str, str]:
    return result.cell.problem, json.dumps([result.cell.kind, result.cell.options], sort_keys=True)


def pareto_row(crossing: Crossing) -> dict[str, Any]:
    """Return one crossing by the names of PARETO_COLUMNS."""
    return {name: getattr(crossing, name) for name in PARETO_COLUMNS}


def grid_rows(found: Sequence[Crossing]) -> tuple[list[str], list[list[str]]]:
    """Lay the crossings out as text: headings, and a row per problem, error and solver with a cell per K."""
    problems = list(dict.fromkeys(each.problem for each in found))
    workers = sorted({each.workers for each in found})
    rows: dict[tuple[str, float, str], dict[int, Crossing]] = {}
    for each in sorted(found, key=lambda each: (problems.index(each.problem), each.error)):
        rows.setdefault((each.problem, each.error, each.solver), {})[each.workers] = each
    return ["problem", "RMSE", "solver", *(f"K={count}" for count in workers)], [
        [problem, f"{error:g}", solver, *(_grid_cell(by_k.get(count)) for count in workers)]
        for (problem, error, solver), by_k in rows.items()
    ]


def _grid_cell(crossing: Crossing | None) -> str:
    if crossing is None:
        return ""
    if crossing.rounds is None:
        return "not reached"
    sign = "<= " if crossing.state == "at most" else ""
    return f"{sign}{crossing.rounds:.1f} ({crossing.speedup:.2f}x)"


def as_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Write RFC 4180 text, UTF-8; an empty cell where there is no number."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_json(settings: Mapping[str, Any], results: Sequence[PointResult], found: Iterable[Crossing]) -> bytes:
    """Write everything that was measured, every sample included."""
    whole = {
        "settings": settings,
        "pareto": [pareto_row(crossing) for crossing in found],
        "cells": [
            {
                **row,
                "options": result.cell.options,
                "code": result.code,
                "by_sample": [asdict(sample) for sample in result.samples],
            }
            for row, result in zip(result_rows(results), results, strict=True)
        ],
    }
    return json.dumps(whole, allow_nan=False).encode("ascii")
