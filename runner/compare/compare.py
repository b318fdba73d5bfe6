"""Comparing: match cells, pair items by prompt and seed, estimate every metric's difference, judge the gates."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from genrun.runner import statistics
from genrun.runner.compare import drift, sets
from genrun.runner.compare.gates import NO_BASELINE, RELATIVE, Gate, gates_of, judge
from genrun.runner.compare.load import Cells, Entry, Number, is_reference_only, read_cells, style_of
from genrun.runner.compare.pairs import Match, across, within
from genrun.runner.compare.results import CellComparison, Comparison, Difference, Mean, Pair, Side, State
from genrun.runner.job.schema import COSTS

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder

WORST = 10

Pairs = Sequence[tuple[Entry, Entry]]


@dataclass(frozen=True)
class Options:
    """What a comparison looks at.

    Attributes:
        gates: limits; None for those of the candidate's job.
        drift: metrics `drift.NAME` to measure beside those that gates name.
        confidence: of every interval.
    """

    gates: Sequence[Gate] | None = None
    drift: Sequence[str] = ()
    confidence: float = statistics.CONFIDENCE


def compare_runs(baseline: RunFolder | None, candidate: RunFolder, options: Options | None = None) -> Comparison:
    """Compare a run with a baseline, cell by cell of its matrix.

    Args:
        baseline: what it is held against; None judges the limits that need no baseline, and leaves the others open.
        candidate: the run that is judged.
        options: gates, drift and confidence.

    Raises:
        UsageError: the runs have no cell in common.
        StoreError: a run cannot be read.
    """
    theirs, ours = None if baseline is None else read_cells(baseline), read_cells(candidate)
    matches, unmatched = across(theirs, ours)
    metrics = {**ours.metrics, **(theirs.metrics if theirs is not None else {})}
    return _comparison(theirs, ours, None, (matches, unmatched), metrics, options or Options())


def compare_cells(
    run: RunFolder, by: str | None = None, baseline: str | None = None, options: Options | None = None
) -> Comparison:
    """Compare the cells of one run along an axis of its matrix.

    Args:
        run: the run.
        by: the axis; the only one, or `solver`, when None.
        baseline: label of the axis that the others are held against; `sequential`, or the first, when None.
        options: gates, drift and confidence.

    Raises:
        UsageError: there is no such axis or label.
        StoreError: the run cannot be read.
    """
    cells = read_cells(run)
    axis, matches, unmatched = within(cells, by, baseline)
    return _comparison(cells, cells, axis, (matches, unmatched), cells.metrics, options or Options())


def _comparison(
    baseline: Cells | None,
    candidate: Cells,
    by: str | None,
    matched: tuple[Sequence[Match], Sequence[str]],
    metrics: Mapping[str, bool],
    options: Options,
) -> Comparison:
    gates = gates_of(candidate.run.job_document()) if options.gates is None else tuple(options.gates)
    matches, unmatched = matched
    drifts = [gate.metric for gate in gates if gate.metric.startswith(drift.PREFIX)]
    names = {**metrics, **COSTS, **{name: drift.direction(name) for name in (*options.drift, *drifts)}}
    cells = tuple(_cell(match, names, _applied(gates, match, matches), options.confidence) for match in matches)
    return Comparison(
        baseline=None if baseline is None else str(baseline.run.path),
        candidate=str(candidate.run.path),
        by=by,
        confidence=options.confidence,
        cells=cells,
        unmatched=tuple(unmatched),
        state=_state(cells),
    )


def _applied(gates: Sequence[Gate], match: Match, matches: Sequence[Match]) -> list[Gate]:
    """The gates that mean something for a cell: the distance to the sequential items does not on these themselves."""
    return [
        gate
        for gate in gates
        if not (gate.rule in RELATIVE and is_reference_only(match.baseline or (), gate.metric))
        and (
            not is_reference_only(match.entries, gate.metric)
            or all(is_reference_only(other.entries, gate.metric) for other in matches)
        )
    ]


def _state(cells: Sequence[CellComparison]) -> State:
    states = [gate.state for cell in cells for gate in cell.gates]
    if "failed" in states:
        return "failed"
    compared = any(found.own.n for cell in cells for found in cell.differences if found.metric not in COSTS)
    return "incomplete" if "incomplete" in states or not (states or compared) else "passed"


def _cell(match: Match, names: Mapping[str, bool], gates: Sequence[Gate], confidence: float) -> CellComparison:
    pairs = match.pairs()
    found = [
        _drifted(name, higher, match, pairs, confidence)
        if name.startswith(drift.PREFIX)
        else sets.difference(name, higher, match)
        if sets.is_of_set(name, match)
        else _difference(name, higher, match, pairs, confidence)
        for name, higher in names.items()
    ]
    by_name = {each.metric: each for each in found}
    return CellComparison(
        label=match.label,
        axes=dict(match.axes),
        baseline_label=match.baseline_label,
        pairs=len(pairs),
        identical=sum(_same_media(*pair) for pair in pairs),
        only_baseline=len(match.baseline or ()) - len(pairs),
        only_candidate=len(match.entries) - len(pairs) if match.baseline is not None else 0,
        differences=tuple(each for each in found if each.own.n or each.metric in {gate.metric for gate in gates}),
        gates=tuple(judge(gate, by_name.get(gate.metric)) for gate in gates),
    )


def _same_media(baseline: Entry, candidate: Entry) -> bool:
    one, other = baseline.record, candidate.record
    return one is not None and other is not None and one.sha256 is not None and one.sha256 == other.sha256


def _difference(name: str, higher: bool, match: Match, pairs: Pairs, confidence: float) -> Difference:
    style = style_of(name)
    own = _mean([entry.number(name) for entry in match.entries], confidence, style)
    if match.baseline is None or is_reference_only(match.baseline, name):
        return Difference(name, higher, style, own)
    numbers = [(one.number(name), other.number(name)) for one, other in pairs]
    measured = [
        _pair(pair, one.value, other.value)
        for pair, (one, other) in zip(pairs, numbers, strict=True)
        if one.value is not None and other.value is not None
    ]
    wins, ties, losses = _by_prompt(measured, higher)
    return Difference(
        name,
        higher,
        style,
        own,
        baseline=_average([pair.baseline.value or 0.0 for pair in measured]),
        candidate=_average([pair.candidate.value or 0.0 for pair in measured]),
        difference=_mean_difference(measured, [_joined(*each) for each in numbers], confidence, style),
        effect=statistics.effect_size([pair.difference for pair in measured]),
        wins=wins,
        ties=ties,
        losses=losses,
        worst=_worst(measured, higher),
    )


def _drifted(name: str, higher: bool, match: Match, pairs: Pairs, confidence: float) -> Difference:
    """Drift has a value for each pair, and no difference: it is one already."""
    if match.baseline is None:
        nothing = [Number(None, NO_BASELINE) for _ in match.entries]
        return Difference(name, higher, style_of(name), _mean(nothing, confidence, ""))
    numbers = drift.measure(name, pairs)
    measured = [
        _pair(pair, None, number.value)
        for pair, number in zip(pairs, numbers, strict=True)
        if number.value is not None and not _same_media(*pair)
    ]
    own = _mean(numbers, confidence, style_of(name))
    return Difference(name, higher, style_of(name), own, worst=_ranked(measured, higher))


def _pair(pair: tuple[Entry, Entry], one: float | None, other: float | None) -> Pair:
    baseline, candidate = pair
    return Pair(
        candidate.item.prompt,
        candidate.item.seed,
        Side(baseline.item.id, one, baseline.media),
        Side(candidate.item.id, other, candidate.media),
        (other or 0.0) - (one or 0.0),
    )


def _joined(one: Number, other: Number) -> Number:
    """What is missing of a pair."""
    return Number(None, f"the baseline: {one.reason}") if one.value is None and other.value is not None else other


def _mean(numbers: Sequence[Number], confidence: float, style: str) -> Mean:
    values = [number.value for number in numbers if number.value is not None]
    interval = statistics.mean_interval(values, confidence, share=style == "share" and statistics.are_binary(values))
    return Mean(len(values), _average(values), *(interval or (None, None)), *_missing(numbers))


def _mean_difference(pairs: Sequence[Pair], numbers: Sequence[Number], confidence: float, style: str) -> Mean:
    sides = [side.value for pair in pairs for side in (pair.baseline, pair.candidate)]
    values = [pair.difference for pair in pairs]
    interval = statistics.difference_interval(
        values, confidence, share=style == "share" and statistics.are_binary(sides)
    )
    return Mean(len(values), _average(values), *(interval or (None, None)), *_missing(numbers))


def _average(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _missing(numbers: Sequence[Number]) -> tuple[int, tuple[tuple[str, int], ...]]:
    """How many are missing, and why."""
    reasons = _reasons(numbers)
    return sum(count for _, count in reasons), reasons


def _reasons(numbers: Sequence[Number]) -> tuple[tuple[str, int], ...]:
    return tuple(Counter(number.reason for number in numbers if number.value is None).most_common())


def _by_prompt(pairs: Sequence[Pair], higher: bool) -> tuple[int, int, int]:
    """Wins, ties and losses of the candidate, by the mean difference of each prompt over its seeds."""
    grouped: dict[str, list[float]] = {}
    for pair in pairs:
        grouped.setdefault(pair.prompt, []).append(pair.difference if higher else -pair.difference)
    sums = [sum(differences) for differences in grouped.values()]
    return sum(total > 0 for total in sums), sum(total == 0 for total in sums), sum(total < 0 for total in sums)


def _worst(pairs: Sequence[Pair], higher: bool) -> tuple[Pair, ...]:
    return _ranked([pair for pair in pairs if (pair.difference < 0 if higher else pair.difference > 0)], higher)


def _ranked(pairs: Sequence[Pair], higher: bool) -> tuple[Pair, ...]:
    return tuple(sorted(pairs, key=lambda pair: pair.difference if higher else -pair.difference)[:WORST])
