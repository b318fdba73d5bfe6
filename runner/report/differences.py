"""Gates and paired differences of a comparison, as rows with their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from genrun.runner.compare import Difference, GateResult
from genrun.runner.compare import tables as formatting
from genrun.runner.compare.results import CellComparison
from genrun.runner.report import chart
from genrun.runner.report.chart import Bar, Scale
from genrun.runner.report.names import RULES, title_of


@dataclass(frozen=True)
class GateRow:
    """A gate on one cell, in words, with its interval beside its limit.

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
class DifferenceRow:
    """A metric of one cell beside the baseline: the columns of `formatting.DIFFERENCES`, and their pictures.

    Attributes:
        title: of the metric.
        n: pairs, of how many.
        baseline: mean.
        candidate: mean.
        difference: mean of the differences with its interval.
        effect: Cohen's d.
        verdict: "better", "worse" or "".
        wins, ties, losses: prompts; all 0 for a metric of the whole set.
        bar: the interval beside 0, or None.
    """

    title: str
    n: str
    baseline: str
    candidate: str
    difference: str
    effect: str
    verdict: str
    wins: int
    ties: int
    losses: int
    bar: Bar | None

    @property
    def prompts(self) -> int:
        """How many prompts were compared."""
        return self.wins + self.ties + self.losses

    @property
    def shares(self) -> tuple[tuple[str, float, float], ...]:
        """(name, from, width) of wins, ties and losses along a bar, in per cent."""
        total = self.prompts
        found, start = [], 0.0
        for name, count in (("wins", self.wins), ("ties", self.ties), ("losses", self.losses)):
            width = round(100 * count / total, 2) if total else 0.0
            found.append((name, start, width))
            start = round(start + width, 2)
        return tuple(found)


@dataclass(frozen=True)
class CellTable:
    """One cell.

    Attributes:
        label: of the cell.
        colour: index of its colour.
        against: label of the cell it is held against.
        pairs: prompts and seeds that both have.
        identical: pairs whose files are the same byte for byte.
        alone: prompts and seeds of one side only.
        rows: metrics that differ on any pair.
        equal: titles of those that do not.
    """

    label: str
    colour: int
    against: str
    pairs: int
    identical: int
    alone: int
    rows: tuple[DifferenceRow, ...]
    equal: tuple[str, ...]


def gate_row(cell: CellComparison, gate: GateResult, colours: Mapping[str, int]) -> GateRow:
    """A gate of a cell; `colours` are those of the cells."""
    colour, rule = colours.get(cell.label, 0), RULES[gate.rule]
    measured, limit = formatting.measured(cell, gate), formatting.limit(cell, gate)
    reason = gate.reason[:1].upper() + gate.reason[1:]
    title = title_of(gate.metric)
    return GateRow(gate.state, title, rule, cell.label, colour, measured, limit, gate.n, reason, _gate_bar(gate))


def _gate_bar(gate: GateResult) -> Bar | None:
    if gate.value is None or gate.threshold is None:
        return None
    ends = [gate.value if end is None else end for end in (gate.low, gate.high)]
    return chart.bar(Scale.over([gate.value, gate.threshold, *ends]), gate.value, gate.low, gate.high, gate.threshold)


def cell_table(cell: CellComparison, colours: Mapping[str, int]) -> CellTable:
    """The metrics of a cell; `colours` are those of the cells."""
    shown = [each for each in cell.differences if each.difference is not None and formatting.is_shown(cell, each)]
    equal = [each for each in shown if _is_equal(each)]
    return CellTable(
        label=cell.label,
        colour=colours.get(cell.label, 0),
        against=cell.baseline_label,
        pairs=cell.pairs,
        identical=cell.identical,
        alone=cell.only_baseline + cell.only_candidate,
        rows=tuple(_row(cell, each) for each in shown if each not in equal),
        equal=tuple(title_of(each.metric) for each in equal),
    )


def _is_equal(found: Difference) -> bool:
    """Whether a metric is the same on every pair, and was measured on each."""
    mean = found.difference
    return mean is not None and mean.n > 0 and not mean.missing and found.effect is None and _no_pair_differs(found)


def _no_pair_differs(found: Difference) -> bool:
    return not found.wins and not found.losses and found.baseline == found.candidate


def _row(cell: CellComparison, found: Difference) -> DifferenceRow:
    _, _, n, baseline, candidate, difference, effect, _, verdict = formatting.difference_row(cell, found)
    return DifferenceRow(
        title_of(found.metric),
        n,
        baseline,
        candidate,
        difference,
        effect,
        verdict,
        found.wins,
        found.ties,
        found.losses,
        _difference_bar(found),
    )


def _difference_bar(found: Difference) -> Bar | None:
    mean = found.difference
    if mean is None or mean.value is None or mean.is_of_set:
        return None
    ends: Sequence[float] = [end for end in (mean.value, mean.low, mean.high) if end is not None]
    return chart.bar(Scale.around(0.0, ends), mean.value, mean.low, mean.high, 0.0)
