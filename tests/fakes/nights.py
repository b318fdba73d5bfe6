"""Nights that nobody ran."""

from __future__ import annotations

from typing import Any

from genrun.runner.store.environment import current
from genrun.runner.store.nights import Attempt, CellMean, GateResult, Night, NightGate


def gate(metric: str, rule: str, limit: float, value: float, state: Any = "passed") -> GateResult:
    return GateResult(metric, rule, limit, limit, value, value - 0.01, value + 0.01, 8, state)


def night(number: int, value: float, **changes: Any) -> Night:
    """The night of the 1st, 2nd, ... at which psnr was `value`."""
    date = f"2026-01-{number:02}"
    moment = f"{date}T02:00:00+00:00"
    fields: dict[str, Any] = {
        "attempts": (Attempt(moment, moment, "finished", current()),),
        "state": "passed",
        "items": 8,
        "done": 8,
        "commit": "a" * 40,
        "measures": (CellMean("ropa", "psnr", 8, value, value - 1, value + 1),),
        "gates": (NightGate("ropa", gate("psnr", "min", 30.0, value)),),
        "summary": f"night {number}",
    }
    return Night("demo", f"run-{number}", date, moment, **{**fields, **changes})
