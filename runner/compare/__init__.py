"""Compare two runs, or the cells of one: matching -> difference -> gates -> results.

`compare_runs` and `compare_cells` return a `Comparison`, plain frozen data; `formats` writes it down.
"""

from genrun.runner.compare.compare import compare_cells, compare_runs
from genrun.runner.compare.gates import Gate, gates_of
from genrun.runner.compare.results import CellComparison, Comparison, Difference, Mean, Pair, PairedItem
from genrun.runner.store.nights import GateResult

__all__ = [
    "CellComparison",
    "Comparison",
    "Difference",
    "Gate",
    "GateResult",
    "Mean",
    "Pair",
    "PairedItem",
    "compare_cells",
    "compare_runs",
    "gates_of",
]
