"""How numbers and long texts are written in reports."""

from __future__ import annotations

from genrun.runner.formatting import ABSENT, count, interval, number, styled, times

__all__ = ["ABSENT", "count", "cut", "interval", "number", "styled", "times"]


def cut(words: str, most: int) -> str:
    """A text of at most about `most` letters; of a longer one, its beginning and how many letters follow."""
    return words if len(words) <= most else f"{words[:most]}… and {len(words) - most:,} letters more"
