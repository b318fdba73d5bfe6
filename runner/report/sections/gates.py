"""Gates of the job on each cell, and what is promised of each cell's tolerance, with what an audit found."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from genrun.runner.compare import GateResult, formats
from genrun.runner.compare.results import CellComparison
from genrun.runner.job.certificates import AIM, sentence
from genrun.runner.report import charts
from genrun.runner.report.charts import Bar, Mark, Plot, Scale, Series, upright
from genrun.runner.report.render import RULES, title_of
from genrun.runner.score.metrics import AUDITED
from genrun.runner.score.summary import axes_of
from genrun.runner.statistics import exact_interval
from genrun.runner.store.records import Score

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem


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
        next((formats.sentence(cell, gate) for cell, gate in gates if gate.state != "passed"), ""),
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
        measured=formats.measured(cell, gate),
        limit=formats.limit(cell, gate),
        n=gate.n,
        reason=gate.reason[:1].upper() + gate.reason[1:],
        bar=bar,
    )


@dataclass(frozen=True)
class PromiseRow:
    """A cell's promise.

    Attributes:
        cell: its label.
        colour: index of its colour.
        kept: True where it is more than an aim.
        text: what is promised; "" where nothing is.
        audit: what the audit found; "" without one.
        errors: of the audited items beside the tolerance; None where none was measured.
    """

    cell: str
    colour: int
    kept: bool
    text: str
    audit: str
    errors: Plot | None


def collect_promises(
    items: Sequence[WorkItem], scores: Iterable[Score], colours: Mapping[str, int]
) -> tuple[PromiseRow, ...]:
    """Lay out the promises and audits of a run, cell by cell; () where there are none.

    Args:
        items: the plan.
        scores: rows of any metrics.
        colours: cell -> index of its colour.
    """
    errors = {row.item_id: row.value for row in scores if row.metric == AUDITED and row.value is not None}
    cells: dict[str, list[WorkItem]] = {}
    for item in items:
        if not item.is_reference:
            cells.setdefault(", ".join(axes_of(item).values()), []).append(item)
    told = {label: found for label, found in cells.items() if any(item.promise or item.audit for item in found)}
    return tuple(_promise(label, found, errors, colours.get(label, 0)) for label, found in told.items())


def _promise(label: str, items: Sequence[WorkItem], errors: Mapping[str, float], colour: int) -> PromiseRow:
    first = items[0]
    tolerance = float(first.promise.get("tolerance", first.solver.get("tolerance", 0.0)))
    audited = [item for item in items if item.audit]
    found = [errors[item.id] for item in audited if item.id in errors]
    # Prompts with a sampling of their own may have another certificate than the cell's, or none.
    told = Counter(sentence(str(item.solver["kind"]), item.promise) if item.promise else "" for item in items)
    of = {text: f"{count:,} of {len(items):,} items: " if len(told) > 1 else "" for text, count in told.items()}
    return PromiseRow(
        cell=label,
        colour=colour,
        kept=all(item.promise and item.promise["state"] != AIM for item in items),
        text=" ".join(f"{of[text]}{text}." for text in told if text),
        audit=_audit(found, len(audited), len(items), tolerance) if audited else "",
        errors=_plot(label, colour, found, tolerance) if found else None,
    )


def _audit(errors: Sequence[float], audited: int, planned: int, tolerance: float) -> str:
    if not errors:
        return f"{audited} items are audited and none is scored yet: genrun score."
    within = sum(error <= tolerance for error in errors)
    low, high = (100 * end for end in exact_interval(within, len(errors)))
    open_ones = f" {audited - len(errors)} more are not measured." if audited > len(errors) else ""
    return (
        f"{len(errors)} of {planned:,} items were also sampled sequentially, {within} of them within {tolerance:g}: between "
        f"{math.floor(low)} and {math.ceil(high)} % of all, with 95 % confidence (Clopper and Pearson).{open_ones}"
    )


def _plot(label: str, colour: int, errors: Sequence[float], tolerance: float) -> Plot:
    """Draw the errors, sorted, beside the tolerance."""
    across, up = Scale.over([1, len(errors)]), Scale.over([0.0, tolerance, *errors])
    places = [(across.at(index), up.down(error), error) for index, error in enumerate(sorted(errors), 1)]
    limit = charts.Guide("limit", charts.line([(0.0, up.down(tolerance)), (100.0, up.down(tolerance))]))
    return Plot(
        alt=f"Latent RMSE of {len(errors)} audited items of {label} beside the tolerance {tolerance:g}",
        series=(
            Series(
                label,
                colour,
                marks=tuple(Mark(x, y, title=f"{error:.3g}") for x, y, error in places),
                value=f"tolerance {tolerance:g}",
            ),
        ),
        y_ticks=upright(up.ticks()),
        guides=(limit,),
        y_title="latent RMSE",
    )
