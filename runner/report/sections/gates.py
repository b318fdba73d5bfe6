"""Gates: each gate of the job on each cell, in words, with its interval beside its limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from genrun.runner.compare import GateResult, tables
from genrun.runner.compare.results import CellComparison
from genrun.runner.report import charts
from genrun.runner.report.charts import Bar, Scale
from genrun.runner.report.text import RULES, title_of


@dataclass(frozen=True)
class GateRow:
    """A gate on one cell.

    Attributes:
        state: "passed", "failed" or "incomplete".
        metric: what it looks at.
        rule: such as "at most".
        cell: label of the cell.
        colour: index of the cell's colour.
        measured: the number and its interval.
        limit: in the metric's units.
        n: items or pairs.
        reason: why it did not pass.
        bar: the interval beside the limit, or None when nothing was measured.
    """

    state: str
    metric: str
    rule: str
    cell: str
    colour: int
    measured: str
    limit: str
    n: int
    reason: str
    bar: Bar | None


@dataclass(frozen=True)
class GatesSection:
    """The gates of a run.

    Attributes:
        state: "passed", "failed" or "incomplete".
        headline: what came of them, in a few words; "" without gates.
        trouble: the first that failed, or else is incomplete, in a sentence; "" when all passed.
        rows: worst first.
    """

    state: str = "passed"
    headline: str = ""
    trouble: str = ""
    rows: tuple[GateRow, ...] = ()


def collect_gates(
    gates: list[tuple[CellComparison, GateResult]], state: str, colours: Mapping[str, int]
) -> GatesSection:
    """Lay out the gates of a comparison.

    Args:
        gates: with their cells, worst first.
        state: of all of them.
        colours: cell -> index of its colour.
    """
    return GatesSection(
        state,
        _headline([gate.state for _, gate in gates]),
        next((tables.sentence(cell, gate) for cell, gate in gates if gate.state != "passed"), ""),
        tuple(_row(cell, gate, colours.get(cell.label, 0)) for cell, gate in gates),
    )


def _headline(states: list[str]) -> str:
    """Return such as "2 of 18 gates failed, 1 could not be judged."."""
    failed, incomplete = states.count("failed"), states.count("incomplete")
    if not states:
        return ""
    if not failed and not incomplete:
        return f"All {len(states)} gates passed." if len(states) > 1 else "The gate passed."
    parts = [f"{failed} of {len(states)} gates failed"] if failed else []
    if incomplete:
        parts.append(f"{incomplete}{'' if failed else f' of {len(states)} gates'} could not be judged")
    return f"{', '.join(parts)}."


def _row(cell: CellComparison, gate: GateResult, colour: int) -> GateRow:
    bar = None
    if gate.value is not None and gate.threshold is not None:
        ends = [gate.value if end is None else end for end in (gate.low, gate.high)]
        scale = Scale.over([gate.value, gate.threshold, *ends])
        bar = charts.bar(scale, gate.value, gate.low, gate.high, gate.threshold)
    return GateRow(
        state=gate.state,
        metric=title_of(gate.metric),
        rule=RULES[gate.rule],
        cell=cell.label,
        colour=colour,
        measured=tables.measured(cell, gate),
        limit=tables.limit(cell, gate),
        n=gate.n,
        reason=gate.reason[:1].upper() + gate.reason[1:],
        bar=bar,
    )
