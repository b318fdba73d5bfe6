"""The part of a run that one of several processes scores, as the user names it or its rank implies."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from genrun.runner.errors import UsageError

# Not SLURM_NTASKS, which a batch script of one process has too, nor the task of an array, which may score a run each.
RANKS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))


@dataclass(frozen=True)
class Shard:
    """A share of the measuring: every `count`-th pair of items, and every `count`-th set.

    Attributes:
        index: 0 to count - 1.
        count: how many processes there are.
    """

    index: int = 0
    count: int = 1

    def takes(self, number: int) -> bool:
        """Return True when the pair or set of that number is this process's."""
        return number % self.count == self.index


WHOLE = Shard()


def shard_of(text: str, environ: Mapping[str, str] = os.environ) -> Shard:
    """Return the shard that "2/8" names, or that this process's rank implies; the whole for a single process.

    Raises:
        UsageError: the text is no shard.
    """
    if text:
        found = re.fullmatch(r"([1-9]\d{0,6})/([1-9]\d{0,6})", text.strip())
        if found is None or int(found[1]) > int(found[2]):
            raise UsageError(f"--shard {text}: wanted I/N with I from 1 to N, such as 2/8.")
        return Shard(int(found[1]) - 1, int(found[2]))
    for names in RANKS:
        if all(name in environ for name in names):
            rank, ranks = (_number(environ[name]) for name in names)
            return Shard(rank, ranks) if 0 <= rank < ranks else WHOLE
    return WHOLE


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
