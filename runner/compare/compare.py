"""Compare two runs, or the cells of one: match cells, pair items, estimate every difference, judge the gates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from genrun.runner.compare import difference
from genrun.runner.compare.difference import has_same_media, metric_difference, otherwise_measured
from genrun.runner.compare.gates import RELATIVE, Gate, gates_of, judge
from genrun.runner.compare.matching import Cells, Match, is_reference_only, match_cells, match_runs, read_cells
from genrun.runner.compare.results import CellComparison, Comparison
from genrun.runner.job.schema import AUDIT, COSTS
from genrun.runner.notes import group_notes
from genrun.runner.statistics import CONFIDENCE
from genrun.runner.store.nights import GateState
from genrun.runner.store.results import uncollected

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder


@dataclass(frozen=True)
class Options:
    """The options of a comparison.

    Attributes:
        gates: limits; None for those of the candidate's job.
        drift: metrics `drift.NAME` to measure beside those that gates name.
        confidence: of every interval.
    """

    gates: Sequence[Gate] | None = None
    drift: Sequence[str] = ()
    confidence: float = CONFIDENCE


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
    with uncollected():
        theirs, ours = None if baseline is None else read_cells(baseline), read_cells(candidate)
        matches, unmatched = match_runs(theirs, ours)
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
    with uncollected():
        cells = read_cells(run)
        axis, matches, unmatched = match_cells(cells, by, baseline)
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
    drifts = [gate.metric for gate in gates if gate.metric.startswith(difference.PREFIX)]
    audit = {AUDIT: True} if candidate.run.job_document().get(AUDIT) is not None else {}
    names = {**metrics, **COSTS, **audit, **{name: difference.direction(name) for name in (*options.drift, *drifts)}}
    apart = {} if baseline is None else otherwise_measured(baseline.ways, candidate.ways)
    cells = tuple(_cell(match, names, _applied(gates, match, matches), options.confidence, apart) for match in matches)
    return Comparison(
        baseline=None if baseline is None else str(baseline.run.path),
        candidate=str(candidate.run.path),
        by=by,
        confidence=options.confidence,
        cells=cells,
        unmatched=tuple(unmatched),
        state=_state(cells),
        notes=(*_notes(baseline, candidate), *(f"{metric}: {why}." for metric, why in apart.items())),
    )


def _notes(baseline: Cells | None, candidate: Cells) -> Iterator[str]:
    """Yield what is to be told of each side's items: a picture that a safety checker replaced is in no mean."""
    sides = {"": candidate} if baseline is candidate else {"Baseline: ": baseline, "Candidate: ": candidate}
    for side, cells in sides.items():
        items = () if cells is None else (item for each in cells.cells.values() for item in each)
        yield from (f"{side}{notes}" for notes in group_notes(item.record for item in items if item.record is not None))


def _applied(gates: Sequence[Gate], match: Match, matches: Sequence[Match]) -> list[Gate]:
    # The distance to the sequential items says nothing about these themselves, which an audit adds to the job's.
    if (
        match.items
        and all(item.planned.audit and item.planned.is_reference for item in match.items)
        and len(matches) > 1
    ):
        return []
    # Where nothing is audited anywhere, the gate stays open everywhere.
    if not any(item.is_audited for item in match.items) and any(
        item.is_audited for other in matches for item in other.items
    ):
        gates = [gate for gate in gates if gate.metric != AUDIT]
    return [
        gate
        for gate in gates
        if not (gate.rule in RELATIVE and is_reference_only(match.baseline or (), gate.metric))
        and (
            not is_reference_only(match.items, gate.metric)
            or all(is_reference_only(other.items, gate.metric) for other in matches)
        )
    ]


def _cell(
    match: Match, names: Mapping[str, bool], gates: Sequence[Gate], confidence: float, apart: Mapping[str, str]
) -> CellComparison:
    pairs = match.pairs()
    found = [
        metric_difference(name, higher, match, pairs, confidence, apart.get(name, "")) for name, higher in names.items()
    ]
    by_name = {each.metric: each for each in found}
    return CellComparison(
        label=match.label,
        axes=dict(match.axes),
        baseline_label=match.baseline_label,
        pairs=len(pairs),
        identical=sum(has_same_media(*pair) for pair in pairs),
        only_baseline=len(match.baseline or ()) - len(pairs),
        only_candidate=len(match.items) - len(pairs) if match.baseline is not None else 0,
        differences=tuple(each for each in found if each.own.n or each.metric in {gate.metric for gate in gates}),
        gates=tuple(judge(gate, by_name.get(gate.metric), confidence) for gate in gates),
    )


def _state(cells: Sequence[CellComparison]) -> GateState:
    states = [gate.state for cell in cells for gate in cell.gates]
    if "failed" in states:
        return "failed"
    compared = any(found.own.n for cell in cells for found in cell.differences if found.metric not in COSTS)
    return "incomplete" if "incomplete" in states or not (states or compared) else "passed"
