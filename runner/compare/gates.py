"""Gates, the limits that a job file sets on metrics, and the judging of an interval by them.

    gates: {latent_rmse: {max: 0.06}, vbench.quality: {max_drop: 0.5%}}

A gate fails only when the interval lies wholly beyond its limit; a number of a whole set of items, such as a Fréchet
distance, has no interval and fails beyond it. A gate is incomplete, not passed, while items that it is about were not
measured, or are too few to have an interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from genrun.runner.compare.results import Difference, Mean
from genrun.runner.job.schema import AUDIT
from genrun.runner.statistics import CONFIDENCE, exact_interval
from genrun.runner.store.nights import GateResult, GateState

ABSOLUTE = ("max", "min")
RELATIVE = ("max_drop", "max_rise")
RULES = (*ABSOLUTE, *RELATIVE)
NO_BASELINE = "there is no baseline to compare with"

ROUNDING = 1e-9
"""Share of the numbers at hand by which one may be beyond a limit that it is meant to be at: 29 % of 100 is 28.999...96."""


@dataclass(frozen=True)
class Limit:
    """A number in a metric's units, or a percentage.

    Attributes:
        written: as in the job file.
        value: the number; of a percentage, the hundredth.
        is_share: True for a percentage.
    """

    written: float | str
    value: float
    is_share: bool

    @classmethod
    def read(cls, written: float | str) -> Limit:
        """Read a number, or a text such as "0.5%".

        Raises:
            ValueError: it is neither.
        """
        if isinstance(written, str):
            return cls(written, float(written.removesuffix("%")) / 100, True)
        return cls(written, float(written), False)

    def of(self, whole: float | None) -> float | None:
        """Return the limit in units of `whole`; None for a share of nothing."""
        if not self.is_share:
            return self.value
        return None if whole is None else self.value * abs(whole)


@dataclass(frozen=True)
class Gate:
    """A limit on a metric.

    Attributes:
        metric: what it looks at, such as "latent_rmse", "vbench.quality", "rounds" or "drift.psnr".
        rule: "max" or "min" of the candidate's mean; "max_drop" or "max_rise" from the baseline's.
        limit: how far it may go.
        max_missing: items that need not be measured: a number, or a share of the items.
    """

    metric: str
    rule: str
    limit: Limit
    max_missing: Limit = Limit(0, 0.0, False)

    @property
    def text(self) -> str:
        """The gate in a job's words: "latent_rmse max 0.06"."""
        return f"{self.metric} {self.rule} {self.limit.written}"


def gates_of(document: Mapping[str, Any]) -> tuple[Gate, ...]:
    """Read the gates of a job's document, which was checked when it was made."""
    found = []
    for metric, rules in (document.get("gates") or {}).items():
        missing = Limit.read(rules.get("max_missing") or 0)
        found += [Gate(metric, rule, Limit.read(rules[rule]), missing) for rule in RULES if rules.get(rule) is not None]
    return tuple(found)


def judge(gate: Gate, found: Difference | None, confidence: float = CONFIDENCE) -> GateResult:
    """Judge a metric of one cell by a gate.

    Args:
        gate: the limit.
        found: the metric; None when nothing of that name was measured or planned.
        confidence: of its intervals.
    """
    nothing = Mean(0, None, None, None)
    if found is None:
        return _result(gate, None, nothing, "incomplete", "nothing of that name was scored")
    if gate.rule in ABSOLUTE:
        mean, threshold = found.own, gate.limit.of(1.0)
    elif found.difference is None:
        return _result(gate, None, nothing, "incomplete", NO_BASELINE)
    else:
        mean, threshold = _worsening(gate.rule, found.difference), gate.limit.of(found.baseline)
    state, reason = _state(gate, mean, threshold, abs(found.baseline or 0.0) if gate.rule in RELATIVE else 0.0)
    if state == "passed" and threshold is not None and (few := _too_few(gate, mean, threshold, confidence)):
        state, reason = "incomplete", few
    return _result(gate, threshold, mean, state, reason)


def _too_few(gate: Gate, mean: Mean, threshold: float, confidence: float) -> str:
    """Say that so few items were audited that the gate passes though none of them were within; "" where it would fail."""
    if gate.metric != AUDIT or gate.rule != "min" or exact_interval(0, mean.n, confidence)[1] < threshold:
        return ""
    items = f"{mean.n} audited item{'' if mean.n == 1 else 's'}"
    return f"{items} cannot tell: the gate would pass if none were within. Audit more"


def _worsening(rule: str, difference: Mean) -> Mean:
    """Return the drop (or rise) from baseline to candidate."""
    if rule == "max_rise" or difference.value is None:
        return difference
    low, high = difference.low, difference.high
    # 0 - x: a drop of nothing is 0, not -0.
    ends = (None, None) if low is None or high is None else (0.0 - high, 0.0 - low)
    return replace(difference, value=0.0 - difference.value, low=ends[0], high=ends[1])


def _state(gate: Gate, mean: Mean, threshold: float | None, scale: float) -> tuple[GateState, str]:
    """Judge a mean; `scale` is the size of the numbers that it is the difference of, 0 where it is none."""
    why = f": {mean.reasons[0][0]}" if mean.reasons else ""
    if mean.value is None or threshold is None:
        return "incomplete", f"nothing was measured{why}"
    low, high = (mean.value, mean.value) if mean.is_of_set else (mean.low, mean.high)
    if low is None or high is None:
        return "incomplete", "one item was measured; an interval needs two"
    beyond = threshold - high if gate.rule == "min" else low - threshold
    if beyond > ROUNDING * max(abs(threshold), abs(low), abs(high), scale):
        side = "below" if gate.rule == "min" else "above"
        what = "the number, which has no interval, lies" if mean.is_of_set else "the interval lies wholly"
        return "failed", f"{what} {side} the limit"
    planned = mean.n + mean.missing
    if mean.missing > (gate.max_missing.of(planned) or 0.0):
        return "incomplete", f"{mean.missing} of {planned} were not measured{why}"
    return "passed", ""


def _result(gate: Gate, threshold: float | None, mean: Mean, state: GateState, reason: str) -> GateResult:
    written = gate.limit.written
    return GateResult(
        gate.metric, gate.rule, written, threshold, mean.value, mean.low, mean.high, mean.n, state, reason
    )
