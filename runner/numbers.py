"""Numbers as people read them: in tables of the terminal, in messages and on pages."""

from __future__ import annotations

ABSENT = "–"
"""Stands where there is no number."""


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


def styled(value: float, style: str) -> str:
    """Write a metric's value in the metric's own style.

    Args:
        value: the number; a share is in 0..1.
        style: "number", "decibel" or "share".
    """
    if style == "share":
        return f"{100 * value:.1f}%".replace(".0%", "%")
    if style == "decibel":
        return f"{value:.1f} dB"
    return number(value)


def interval(low: float | None, high: float | None, style: str) -> str:
    """Write a 95% interval, "[0.0100, 0.0140]"; "" when there is none or its ends are equal."""
    if low is None or high is None or low == high:
        return ""
    return f"[{styled(low, style).removesuffix(' dB')}, {styled(high, style).removesuffix(' dB')}]"
