"""How numbers and long texts are written in reports."""

from __future__ import annotations

from genrun.runner import numbers
from genrun.runner.numbers import ABSENT, count, number, styled, times
from genrun.runner.statistics import Estimate

__all__ = ["ABSENT", "count", "cut", "interval", "number", "styled", "times"]


def interval(estimate: Estimate, style: str) -> str:
    """Write the 95 % interval, or "" when there is none or all items agree."""
    return numbers.interval(estimate.low, estimate.high, style)


def cut(words: str, most: int) -> str:
    """Return a text of at most about `most` letters; of a longer one, its beginning and how many letters follow."""
    return words if len(words) <= most else f"{words[:most]}… and {len(words) - most:,} letters more"
