"""How numbers are written in tables and reports."""

from __future__ import annotations

from genrun.runner.score.summary import Estimate

ABSENT = "–"


def number(value: float) -> str:
    """Three significant digits: 0.0123, 1.41, 127."""
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        return f"{value:.1e}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def count(value: float) -> str:
    """A mean of counts: whole numbers as they are, others with one decimal."""
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def times(value: float) -> str:
    """A factor: 2.86×."""
    return f"{value:.2f}×"


def styled(value: float, style: str) -> str:
    """A metric's value, in the style that the metric names.

    Args:
        value: the number; a share is in 0..1.
        style: "number", "decibel" or "share".
    """
    if style == "share":
        return f"{100 * value:.1f}%".replace(".0%", "%")
    if style == "decibel":
        return f"{value:.1f} dB"
    return number(value)


def interval(estimate: Estimate, style: str) -> str:
    """The 95% interval, "[0.0100, 0.0140]", or "" when there is none or all items agree."""
    if estimate.low is None or estimate.high is None or estimate.low == estimate.high:
        return ""
    low, high = styled(estimate.low, style), styled(estimate.high, style)
    return f"[{low.removesuffix(' dB')}, {high.removesuffix(' dB')}]"


def cut(words: str, most: int) -> str:
    """A text of at most about `most` letters; of a longer one, its beginning and how many letters follow."""
    return words if len(words) <= most else f"{words[:most]}… and {len(words) - most:,} letters more"
