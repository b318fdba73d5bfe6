"""Match each cell of a run with its baseline, and pair their items by prompt and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from genrun.registry import did_you_mean
from genrun.runner.compare.load import Axes, Cells, ComparedItem
from genrun.runner.errors import UsageError
from genrun.runner.store.records import Score

SEQUENTIAL = "sequential"
SHOWN = 6
"""Labels that a message lists."""


@dataclass(frozen=True)
class Match:
    """A cell of the candidate and its baseline.

    Attributes:
        label: of the cell.
        axes: of the cell.
        items: its items.
        baseline_label: of the baseline's cell, "" without one.
        baseline: items of that cell, or None without a baseline.
        sets: metric -> score of the cell's items together.
        baseline_sets: the same of the baseline.
    """

    label: str
    axes: Axes
    items: tuple[ComparedItem, ...]
    baseline_label: str = ""
    baseline: tuple[ComparedItem, ...] | None = None
    sets: Mapping[str, Score] = field(default_factory=dict)
    baseline_sets: Mapping[str, Score] = field(default_factory=dict)

    def pairs(self) -> list[tuple[ComparedItem, ComparedItem]]:
        """Return (baseline, candidate) for every prompt and seed that both have, in the order of the candidate's plan."""
        partners = {item.key: item for item in self.baseline or ()}
        return [(partners[item.key], item) for item in self.items if item.key in partners]


def label_of(axes: Axes, items: Sequence[ComparedItem]) -> str:
    """Name a cell by the labels of its axes, or by its solver when the job has no matrix."""
    return ", ".join(label for _, label in axes) or str(items[0].planned.solver.get("kind", "?"))


def match_runs(baseline: Cells | None, candidate: Cells) -> tuple[list[Match], list[str]]:
    """Match the cells of two runs: by their labels, or everything with the baseline's only cell.

    Returns:
        The matches, and the labels of cells that have no partner.

    Raises:
        UsageError: the runs have no cell in common.
    """
    if baseline is None:
        return [_alone(candidate, axes) for axes in candidate.cells], []
    only = next(iter(baseline.cells)) if len(baseline.cells) == 1 else None
    matches, unmatched = [], []
    for axes, items in candidate.cells.items():
        partner = axes if axes in baseline.cells else only
        if partner is None:
            unmatched.append(label_of(axes, items))
            continue
        matches.append(_match(candidate, axes, baseline, partner))
    used = {match.baseline_label for match in matches}
    theirs = [label_of(axes, items) for axes, items in baseline.cells.items()]
    if not matches:
        raise UsageError(
            f"no cell of {candidate.run.path} is one of {baseline.run.path}: {_few(unmatched)} against {_few(theirs)}.",
            remedy="Compare runs whose matrix has the same labels, or a run with itself: genrun compare RUN --by AXIS.",
        )
    return matches, unmatched + [label for label in theirs if label not in used]


def match_cells(run: Cells, by: str | None, baseline: str | None) -> tuple[str, list[Match], list[str]]:
    """Match the cells of one run along an axis: those that differ in it alone.

    Returns:
        The axis, the matches, and the labels of cells without a partner.

    Raises:
        UsageError: there is no such axis or label, or it has to be named.
    """
    axis = _axis(run, by)
    reference = _reference(run, axis, baseline)
    partners = {_others(axes, axis): axes for axes in run.cells if dict(axes).get(axis) == reference}
    matches, unmatched = [], []
    for axes, items in run.cells.items():
        partner = partners.get(_others(axes, axis))
        if partner is None:
            unmatched.append(label_of(axes, items))
        elif partner != axes:
            matches.append(_match(run, axes, run, partner))
    return axis, matches, unmatched


def _alone(cells: Cells, axes: Axes) -> Match:
    """Return a cell without a baseline."""
    items = cells.cells[axes]
    label = label_of(axes, items)
    return Match(label, axes, items, sets=cells.sets_of(label))


def _match(candidate: Cells, axes: Axes, baseline: Cells, partner: Axes) -> Match:
    """Return a cell and its baseline."""
    theirs = baseline.cells[partner]
    label = label_of(partner, theirs)
    return replace(
        _alone(candidate, axes), baseline_label=label, baseline=theirs, baseline_sets=baseline.sets_of(label)
    )


def _axis(run: Cells, by: str | None) -> str:
    axes = list(dict.fromkeys(axis for cell in run.cells for axis, _ in cell))
    if by is not None and by not in axes:
        there = f"Axes: {', '.join(axes)}." if axes else "It has no matrix."
        raise UsageError(f"{run.run.path}: no axis {by!r}.{did_you_mean(by, axes)}", remedy=there)
    if by is None and not axes:
        raise UsageError(f"{run.run.path}: one run without a matrix.", remedy="Name two: genrun compare RUN_A RUN_B.")
    if by is None and len(axes) > 1 and "solver" not in axes:
        raise UsageError(f"{run.run.path}: which axis? There are: {', '.join(axes)}.", remedy=f"Add --by {axes[0]}.")
    return by or ("solver" if "solver" in axes else axes[0])


def _reference(run: Cells, axis: str, baseline: str | None) -> str:
    labels = list(dict.fromkeys(label for cell in run.cells for name, label in cell if name == axis))
    if baseline is None:
        return SEQUENTIAL if SEQUENTIAL in labels else labels[0]
    if baseline in labels:
        return baseline
    meant = did_you_mean(baseline, labels)
    raise UsageError(f"--baseline {baseline}: no such label of {axis}.{meant}", remedy=f"Labels: {', '.join(labels)}.")


def _others(axes: Axes, axis: str) -> Axes:
    return tuple(pair for pair in axes if pair[0] != axis)


def _few(labels: Sequence[str]) -> str:
    return "; ".join(labels[:SHOWN]) + ("; ..." if len(labels) > SHOWN else "")
