"""A comparison in words and cells of text, for terminals and Markdown."""

from __future__ import annotations

from collections.abc import Iterable

from genrun.runner.compare.results import CellComparison, Comparison, Difference, GateResult, Pair
from genrun.runner.job.gating import COSTS
from genrun.runner.numbers import ABSENT, styled

DIFFERENCES = ("cell", "metric", "n", "baseline", "candidate", "difference", "d", "prompts +/=/-", "")
GATES = ("gate", "cell", "limit", "measured", "n", "")
WORST = ("prompt", "seed", "baseline", "candidate", "difference")
RIGHT = ("n", "baseline", "candidate", "d", "prompts +/=/-", "seed", "limit")
"""Columns that are aligned to the right."""

MARKS = {"failed": "FAILED", "incomplete": "incomplete", "passed": "passed"}


def headline(found: Comparison) -> str:
    """One sentence: what came of it."""
    gates = found.gates
    counts = {state: sum(gate.state == state for _, gate in gates) for state in MARKS}
    if not gates:
        said = {"passed": "No gates are set; nothing was judged.", "incomplete": "Nothing was compared."}
        return said.get(found.state, "")
    parts = [f"{count} {state}" for state, count in counts.items() if count]
    return f"{len(gates)} gates: {', '.join(parts)}."


def sentence(cell: CellComparison, gate: GateResult) -> str:
    """One gate in one sentence: "ropa K=8: psnr drop of 1.20 dB [0.90, 1.50], allowed 0.500 dB"."""
    if gate.value is None:
        return f"{cell.label}: {gate.metric} {gate.rule} {gate.limit}: {gate.reason}"
    what = {"max": "is", "min": "is", "max_drop": "drop of", "max_rise": "rise of"}[gate.rule]
    bound = {"max": "at most", "min": "at least"}.get(gate.rule, "allowed")
    return f"{cell.label}: {gate.metric} {what} {measured(cell, gate)}, {bound} {limit(cell, gate)}"


def difference_rows(found: Comparison) -> list[list[str]]:
    """A row for each cell and metric; parts of metrics only where a gate looks at them."""
    return [difference_row(cell, each) for cell in found.cells for each in cell.differences if is_shown(cell, each)]


def gate_rows(found: Comparison) -> list[list[str]]:
    """A row for each gate, the worst first."""
    return [
        [
            MARKS[gate.state],
            cell.label,
            f"{gate.metric} {gate.rule} {gate.limit}",
            measured(cell, gate),
            str(gate.n),
            gate.reason,
        ]
        for cell, gate in found.gates
    ]


def worst_rows(found: Difference) -> list[list[str]]:
    """A row for each of the worst pairs."""
    return [
        [pair.prompt, str(pair.seed), *(_styled(value, found.style) for value in _values(pair))] for pair in found.worst
    ]


def worst_metric(found: Comparison, named: str | None = None) -> str | None:
    """The metric whose worst pairs are shown: as named, that of the first failed gate, or the first with any."""
    if named is not None:
        return named
    failed = [gate.metric for _, gate in found.gates if gate.state == "failed"]
    some = [each.metric for cell in found.cells for each in cell.differences if each.worst and each.metric not in COSTS]
    return next((metric for metric in [*failed, *some] if metric in some), None)


def measured(cell: CellComparison, gate: GateResult) -> str:
    """What a gate saw, with its interval."""
    style = _style(cell.differences, gate.metric)
    return _styled(gate.value, style) + _interval(gate.low, gate.high, style)


def limit(cell: CellComparison, gate: GateResult) -> str:
    """The limit in the metric's own units, and as written where that is a percentage of something."""
    style = _style(cell.differences, gate.metric)
    text = _styled(gate.threshold, style)
    return f"{text} ({gate.limit})" if isinstance(gate.limit, str) and gate.limit != text else text


def is_shown(cell: CellComparison, found: Difference) -> bool:
    """Whether tables list a metric: parts of metrics only where a gate looks at them."""
    return "." not in found.metric.removeprefix("drift.") or found.metric in {gate.metric for gate in cell.gates}


def difference_row(cell: CellComparison, found: Difference) -> list[str]:
    """One metric of a cell, as the columns `DIFFERENCES`."""
    mean = found.difference or found.own
    value = _styled(mean.value, found.style, signed=found.difference is not None)
    has_prompts = found.difference is not None and not found.difference.is_of_set
    prompts = f"{found.wins}/{found.ties}/{found.losses}" if has_prompts else ""
    verdict = {"unclear": "", "unmeasured": ""}.get(found.verdict, found.verdict)
    candidate = found.own.value if found.difference is None else found.candidate
    return [
        cell.label,
        found.metric,
        str(mean.n) + (f" of {mean.n + mean.missing}" if mean.missing else ""),
        _styled(found.baseline, found.style),
        _styled(candidate, found.style),
        ((value if found.difference is not None else "") + _interval(mean.low, mean.high, found.style)).strip(),
        ABSENT if found.effect is None else f"{found.effect:+.2f}",
        prompts,
        verdict,
    ]


def _values(pair: Pair) -> tuple[float | None, float | None, float]:
    return pair.baseline.value, pair.candidate.value, pair.difference


def _interval(low: float | None, high: float | None, style: str) -> str:
    if low is None or high is None:
        return ""
    low_text, high_text = (_styled(end, style).removesuffix(" dB") for end in (low, high))
    return f" [{low_text}, {high_text}]"


def _styled(value: float | None, style: str, *, signed: bool = False) -> str:
    if value is None:
        return ABSENT
    return ("+" if signed and value > 0 else "") + styled(value, style)


def _style(differences: Iterable[Difference], metric: str) -> str:
    return next((each.style for each in differences if each.metric == metric), "number")
