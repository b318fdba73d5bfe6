"""What a run is held against: its baseline, or its own cells; gates, paired differences, and the worst pairs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genrun.runner.compare import Comparison, compare_cells, compare_runs, gates_of
from genrun.runner.compare import tables as formatting
from genrun.runner.errors import GenrunError
from genrun.runner.report.differences import CellTable, GateRow, cell_table, gate_row
from genrun.runner.report.names import shown_path
from genrun.runner.report.worst import Worst, worst_pairs
from genrun.runner.store.folder import RunFolder, is_run
from genrun.runner.store.nights import read_night
from genrun.runner.store.runs import pinned


@dataclass(frozen=True)
class Versus:
    """The comparison as the page shows it.

    Attributes:
        against: "this run's sequential items", or the name of the baseline's run; "" without any.
        path: the baseline's run, absolute, or "".
        baseline: the same, as a word of a command.
        headline: what came of the gates; "" without gates.
        trouble: the first gate that failed, or else is incomplete, in a sentence; "" when all passed.
        state: "passed", "failed" or "incomplete".
        gates: worst first.
        cells: those with a baseline.
        unmatched: labels of cells without one.
        worst: listings of pairs.
        note: what could not be compared, or "".
    """

    against: str = ""
    path: str = ""
    baseline: str = ""
    headline: str = ""
    trouble: str = ""
    state: str = "passed"
    gates: tuple[GateRow, ...] = ()
    cells: tuple[CellTable, ...] = ()
    unmatched: tuple[str, ...] = ()
    worst: Worst = field(default_factory=Worst)
    note: str = ""

    @property
    def has_table(self) -> bool:
        """Whether there are differences to show, or no gates beside which to say why there are none."""
        return bool(self.cells) or bool(self.note and not self.gates)

    def data(self) -> list[dict[str, Any]]:
        """What the script shows of the worst pairs."""
        return list(self.worst.listings)


def hold_against(run: RunFolder, colours: Mapping[str, int]) -> Versus | None:
    """Compare a run with its baseline, or by its own cells when it has gates; None where there is neither.

    The baseline is the one that its night was judged by, or that is pinned beside it.

    Args:
        run: the run of the page.
        colours: cell -> index of its colour.
    """
    gates = gates_of(run.job_document())
    try:
        baseline, note = _baseline(run)
        if baseline is None and not gates:
            return Versus(note=note) if note else None
        return _versus(_compare(run, baseline), run, colours, note)
    except GenrunError as error:
        return Versus(note=" ".join(filter(None, (error.message, error.remedy))))


def _baseline(run: RunFolder) -> tuple[RunFolder | None, str]:
    """The run's baseline, and what is wrong with it."""
    night = read_night(run.night_path)
    if night is not None and night.baseline is not None:
        path = Path(night.baseline)
        if path.is_dir() and is_run(path):
            return RunFolder.open(path), ""
        return None, f"The baseline of this night is no longer there: {path.name}."
    found = pinned(run.path.parent)
    return (None if found is None or found.path == run.path else found), ""


def _compare(run: RunFolder, baseline: RunFolder | None) -> Comparison:
    is_matrix = len({tuple(item.axes.items()) for item in run.items()}) > 1
    is_night = run.night_path.is_file()
    if baseline is None and is_matrix and not is_night:
        return compare_cells(run)
    return compare_runs(baseline, run)


def _versus(found: Comparison, run: RunFolder, colours: Mapping[str, int], note: str) -> Versus:
    baseline = "" if found.by is not None or found.baseline is None else found.baseline
    return Versus(
        against=_against(found),
        path=baseline,
        baseline=shlex.quote(shown_path(Path(baseline))) if baseline else "",
        headline=_headline(found),
        trouble=next((formatting.sentence(*pair) for pair in found.gates if pair[1].state != "passed"), ""),
        state=found.state,
        gates=tuple(gate_row(cell, gate, colours) for cell, gate in found.gates),
        cells=tuple(table for cell in found.cells if (table := cell_table(cell, colours)).rows or table.equal),
        unmatched=found.unmatched,
        worst=worst_pairs(found, run, colours),
        note=note,
    )


def _against(found: Comparison) -> str:
    if found.by is None:
        return "" if found.baseline is None else Path(found.baseline).name
    labels = {cell.baseline_label for cell in found.cells}
    return f"this run's {labels.pop()} items" if len(labels) == 1 else f"this run's own cells along {found.by}"


def _headline(found: Comparison) -> str:
    """What came of the gates, in a few words: "2 of 18 gates failed, 1 is incomplete."."""
    states = [gate.state for _, gate in found.gates]
    failed, open_ = states.count("failed"), states.count("incomplete")
    if not states:
        return ""
    if not failed and not open_:
        return f"All {len(states)} gates passed." if len(states) > 1 else "The gate passed."
    told = [f"{failed} of {len(states)} gates failed" if failed else ""]
    told += [f"{open_}{'' if failed else f' of {len(states)} gates'} could not be judged" if open_ else ""]
    return f"{', '.join(filter(None, told))}."
