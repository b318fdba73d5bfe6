"""The results as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from genrun.runner.bench.pareto import Crossing
from genrun.runner.bench.results import Result

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
    "round_s",
    "round_ratio",
    "error",
)
PARETO_COLUMNS = ("problem", "solver", "workers", "error", "rounds", "speedup", "state")


def result_row(result: Result) -> dict[str, Any]:
    """One cell by the names of RESULT_COLUMNS; None where there is no number."""
    cell = result.cell
    row: dict[str, Any] = dict.fromkeys(RESULT_COLUMNS)
    row |= {"problem": cell.problem, "solver": cell.solver, "workers": cell.workers, "tolerance": cell.tolerance}
    row |= {"samples": len(result.samples), "steps": result.num_steps, "error": result.error or None}
    if result.samples:
        row |= {"rounds": result.rounds, "nfe": result.nfe, "speedup": result.speedup, "skipped": result.skipped}
        row |= {"rmse_mean": result.rmse, "rmse_median": result.rmse_median, "rmse_max": result.rmse_max}
        row |= {"worst_block": result.worst_block, "round_ratio": result.round_ratio}
        row["round_s"] = result.elapsed_s / result.calls if result.calls else None
    return row


def pareto_row(crossing: Crossing) -> dict[str, Any]:
    """One crossing by the names of PARETO_COLUMNS."""
    return {name: getattr(crossing, name) for name in PARETO_COLUMNS}


def as_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """RFC 4180 text, UTF-8; an empty cell where there is no number."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_json(settings: Mapping[str, Any], results: Iterable[Result], found: Iterable[Crossing]) -> bytes:
    """Everything that was measured, every sample included."""
    whole = {
        "settings": settings,
        "pareto": [pareto_row(crossing) for crossing in found],
        "cells": [{**result_row(result), **_details(result)} for result in results],
    }
    return json.dumps(whole, allow_nan=False).encode("ascii")


def _details(result: Result) -> dict[str, Any]:
    return {
        "options": result.cell.options,
        "code": result.code,
        "by_sample": [asdict(sample) for sample in result.samples],
    }
