"""Comparing two runs, or the cells of one: paired differences with intervals, and gates that pass, fail or stay open.

`compare_runs` and `compare_cells` return a `Comparison`, plain frozen data; `junit` and `markdown` write it down.
"""

from genrun.runner.compare.compare import compare_cells, compare_runs
from genrun.runner.compare.gates import Gate, gates_of
from genrun.runner.compare.results import CellComparison, Comparison, Difference, GateResult, Mean, Pair, Side

__all__ = [
    "CellComparison",
    "Comparison",
    "Difference",
    "Gate",
    "GateResult",
    "Mean",
    "Pair",
    "Side",
    "compare_cells",
    "compare_runs",
    "gates_of",
]
