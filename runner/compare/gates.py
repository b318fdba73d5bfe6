"""Gates: limits that a job file sets on metrics, and what an interval says about them.

    gates: {latent_rmse: {max: 0.06}, vbench.quality: {max_drop: 0.5%}}

A gate fails only when the interval lies wholly beyond its limit; a number of a whole set of items, such as a Fréchet
distance, has no interval and fails beyond it. A gate is incomplete, not passed, while items that it is about were not
measured, or are too few to have an interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from genrun.runner.compare.results import Difference, GateResult, Mean, State

ABSOLUTE = ("max", "min")
RELATIVE = ("max_drop", "max_rise")
RULES = (*ABSOLUTE, *RELATIVE)
NO_BASELINE = "there is no baseline to compare with"


@dataclass(frozen=True)
class Limit:
    """A number in a metric's units, or a percentage.

    Attributes:
        written: as in the job file.
        value: the number; of a percentage, the hundredth.
        is_share: whether it is a percentage.
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
        """The limit in units of `whole`; None for a share of nothing."""
        if not self.is_share:
            return self.value
        return None if whole is None else self.value * abs(whole)


@dataclass(frozen=True)
class Gate:
    """One limit on one metric.

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
    def needs_baseline(self) -> bool:
        """Whether it can be judged only against a baseline."""
        return self.rule in RELATIVE or self.metric.startswith("drift.")

    @property
    def text(self) -> str:
        """As it is read: "latent_rmse max 0.06"."""
        return f"{self.metric} {self.rule} {self.limit.written}"


def gates_of(document: Mapping[str, Any]) -> tuple[Gate, ...]:
    """The gates of a job's document, which was checked when it was made."""
    found = []
    for metric, rules in (document.get("gates") or {}).items():
        missing = Limit.read(rules.get("max_missing") or 0)
        found += [Gate(metric, rule, Limit.read(rules[rule]), missing) for rule in RULES if rules.get(rule) is not None]
    return tuple(found)


def judge(gate: Gate, found: Difference | None) -> GateResult:
    """Hold a metric of one cell against a gate.

    Args:
        gate: the limit.
        found: the metric; None when nothing of that name was measured or planned.
    """
    if found is None:
        return _result(gate, None, Mean(0, None, None, None), "incomplete", "nothing of that name was scored")
    if gate.rule in ABSOLUTE:
        return _judged(gate, found.own, gate.limit.of(1.0))
    if found.difference is None:
        return _result(gate, None, Mean(0, None, None, None), "incomplete", NO_BASELINE)
    return _judged(gate, _worsening(gate.rule, found.difference), gate.limit.of(found.baseline))


def _worsening(rule: str, difference: Mean) -> Mean:
    """The drop (or rise) from baseline to candidate."""
    if rule == "max_rise" or difference.value is None:
        return difference
    low, high = difference.low, difference.high
    # 0 - x: a drop of nothing is 0, not -0.
    ends = (None, None) if low is None or high is None else (0.0 - high, 0.0 - low)
    return replace(difference, value=0.0 - difference.value, low=ends[0], high=ends[1])


def _judged(gate: Gate, mean: Mean, threshold: float | None) -> GateResult:
    state, reason = _state(gate, mean, threshold)
    return _result(gate, threshold, mean, state, reason)


def _state(gate: Gate, mean: Mean, threshold: float | None) -> tuple[State, str]:
    if mean.value is None or threshold is None:
        return "incomplete", f"nothing was measured{_why(mean)}"
    low, high = (mean.value, mean.value) if mean.is_of_set else (mean.low, mean.high)
    if low is None or high is None:
        return "incomplete", "one item was measured; an interval needs two"
    if (high < threshold) if gate.rule == "min" else (low > threshold):
        side = "below" if gate.rule == "min" else "above"
        what = "the number, which has no interval, lies" if mean.is_of_set else "the interval lies wholly"
        return "failed", f"{what} {side} the limit"
    planned = mean.n + mean.missing
    if mean.missing > (gate.max_missing.of(planned) or 0.0):
        return "incomplete", f"{mean.missing} of {planned} were not measured{_why(mean)}"
    return "passed", ""


def _why(mean: Mean) -> str:
    return f": {mean.reasons[0][0]}" if mean.reasons else ""


def _result(gate: Gate, threshold: float | None, mean: Mean, state: State, reason: str) -> GateResult:
    written = gate.limit.written
    return GateResult(
        gate.metric, gate.rule, written, threshold, mean.value, mean.low, mean.high, mean.n, state, reason
    )
