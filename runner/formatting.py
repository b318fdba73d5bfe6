"""How numbers are written in tables, reports and messages."""

from __future__ import annotations

from genrun.runner.statistics import Estimate

ABSENT = "–"


def number(value: float) -> str:
    """Write three significant digits: 0.0123, 1.41, 127."""
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        return f"{value:.1e}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def count(value: float) -> str:
    """Write a mean of counts: whole numbers as they are, others with one decimal."""
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def times(value: float) -> str:
    """Write a factor: 2.86×."""
    return f"{value:.2f}×"


def styled(value: float | None, style: str, *, signed: bool = False) -> str:
    """Write a metric's value in the style that the metric names.

    Args:
        value: the number; a share is in 0..1. None is written as a dash.
        style: "number", "decibel" or "share".
        signed: True to write the sign of a positive value, too.
    """
    if value is None:
        return ABSENT
    sign = "+" if signed and value > 0 else ""
    if style == "share":
        return sign + f"{100 * value:.1f}%".replace(".0%", "%")
    if style == "decibel":
        return f"{sign}{value:.1f} dB"
    return sign + number(value)


def span(low: float, high: float, style: str) -> str:
    """Write an interval: "[0.0100, 0.0140]"."""
    return f"[{styled(low, style).removesuffix(' dB')}, {styled(high, style).removesuffix(' dB')}]"


def interval(estimate: Estimate, style: str) -> str:
    """Write the 95 % interval, or "" when there is none or all items agree."""
    if estimate.low is None or estimate.high is None or estimate.low == estimate.high:
        return ""
    return span(estimate.low, estimate.high, style)
