"""The part of a run that one of several processes scores."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shard:
    """What one of several processes measures: every `count`-th pair of items, and every `count`-th set.

    Attributes:
        index: 0 to count - 1.
        count: how many processes there are.
    """

    index: int = 0
    count: int = 1

    def takes(self, number: int) -> bool:
        """Whether the pair or set of that number is this process's."""
        return number % self.count == self.index


WHOLE = Shard()
