"""The results of a comparison as plain data: `dataclasses.asdict` of it is its JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from genrun.runner.store.nights import GateResult, GateState

Verdict = Literal["better", "worse", "unclear", "unmeasured"]


@dataclass(frozen=True)
class PairedItem:
    """An item of a pair.

    Attributes:
        item_id: the item.
        value: of the metric; None for the baseline's side of `drift`.
        media: its clip or picture, absolute; None when it has none.
    """

    item_id: str
    value: float | None
    media: str | None


@dataclass(frozen=True)
class Pair:
    """An item and its baseline's of the same prompt and seed; `difference` is candidate - baseline, or the drift."""

    prompt: str
    seed: int
    baseline: PairedItem
    candidate: PairedItem
    difference: float


@dataclass(frozen=True)
class Mean:
    """A mean over items with its interval.

    Attributes:
        n: items measured.
        value: their mean; None for none.
        low: lower end of the interval of the mean; None for fewer than two items, and for a number of the whole set.
        high: upper end.
        missing: items of the plan that were not measured.
        reasons: why not, the most frequent first, with how many.
        is_of_set: True for one number of all items, such as a Fréchet distance, that has no interval.
    """

    n: int
    value: float | None
    low: float | None
    high: float | None
    missing: int = 0
    reasons: tuple[tuple[str, int], ...] = ()
    is_of_set: bool = False


@dataclass(frozen=True)
class Difference:
    """A metric over the pairs of a cell; differences are candidate - baseline.

    Attributes:
        metric: its name, such as "psnr", "checker.shape", "rounds" or "drift.ssim".
        higher_is_better: its direction.
        style: "number", "decibel" or "share", as the metric says.
        own: mean over all items of the candidate's cell, whether they have a partner or not.
        baseline: the baseline's mean over the pairs that were measured on both sides; None without any, and for `drift`,
            which measures the candidate against the baseline itself.
        candidate: the candidate's mean over the same pairs.
        difference: mean of the paired differences.
        effect: Cohen's d for pairs; None for fewer than two pairs and for differences without any spread.
        wins: prompts (means over their seeds) on which the candidate is better.
        ties: prompts on which it is exactly equal.
        losses: prompts on which it is worse.
        worst: the pairs on which the candidate falls behind most, the worst first; at most ten.
    """

    metric: str
    higher_is_better: bool
    style: str
    own: Mean
    baseline: float | None = None
    candidate: float | None = None
    difference: Mean | None = None
    effect: float | None = None
    wins: int = 0
    ties: int = 0
    losses: int = 0
    worst: tuple[Pair, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The side of 0 on which the interval of the difference lies wholly, in the metric's direction."""
        found = self.difference
        if found is None or found.low is None or found.high is None:
            return "unmeasured"
        if found.low > 0:
            return "better" if self.higher_is_better else "worse"
        if found.high < 0:
            return "worse" if self.higher_is_better else "better"
        return "unclear"


@dataclass(frozen=True)
class CellComparison:
    """A cell of the candidate against its baseline.

    Attributes:
        label: of the cell, such as "ropa K=8".
        axes: axis -> label of the candidate's cell.
        baseline_label: of the cell it is compared with.
        pairs: prompts and seeds that both sides have.
        identical: pairs whose media are the same byte for byte.
        only_baseline: prompts and seeds that only the baseline has.
        only_candidate: prompts and seeds that only the candidate has.
        differences: one for each metric.
        gates: one for each gate that applies to this cell.
    """

    label: str
    axes: Mapping[str, str]
    baseline_label: str
    pairs: int
    identical: int
    only_baseline: int
    only_candidate: int
    differences: tuple[Difference, ...]
    gates: tuple[GateResult, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Two runs, or the cells of one.

    Attributes:
        baseline: the run folder of the baseline, absolute; None when there was none.
        candidate: the run folder that is judged; the same when the cells of one run are compared.
        by: the axis whose cells are compared, or None for two runs.
        confidence: of every interval.
        cells: one for each cell of the candidate that has a baseline.
        unmatched: labels of cells without one, of either run.
        state: "failed" when a gate failed; else "incomplete" when a gate is, or when nothing was compared.
        notes: what is to be told of items that are done: a line for each kind.
    """

    baseline: str | None
    candidate: str
    by: str | None
    confidence: float
    cells: tuple[CellComparison, ...]
    unmatched: tuple[str, ...]
    state: GateState
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        what = f"cells by {self.by}" if self.by else f"against {self.baseline}"
        gates = f"{len(self.gates)} gates" if self.gates else "no gates"
        return f"Comparison({self.candidate!r}, {what}: {len(self.cells)} cells, {gates}, {self.state})"

    def _repr_html_(self) -> str:
        """Return the differences as a table, for notebooks."""
        from genrun.runner.compare.formats import html

        return html(self)

    def plot(self) -> Any:
        """Return a matplotlib figure of every difference with its interval.

        Raises:
            UsageError: nothing was compared.
        """
        from genrun.runner.compare.formats import draw

        return draw(self)

    @property
    def gates(self) -> list[tuple[CellComparison, GateResult]]:
        """All gates with their cells; those that failed first, then the incomplete ones."""
        order = {"failed": 0, "incomplete": 1, "passed": 2}
        found = [(cell, gate) for cell in self.cells for gate in cell.gates]
        return sorted(found, key=lambda pair: order[pair[1].state])


def exit_code(state: GateState) -> int:
    """Return 0 for passed, 1 for failed, 3 for incomplete."""
    return {"passed": 0, "failed": 1, "incomplete": 3}[state]
