"""Which part of a run this process scores: told, or by its rank under torchrun or srun."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from genrun.runner.errors import UsageError
from genrun.runner.score.shard import WHOLE, Shard

# Not SLURM_NTASKS, which a batch script of one process has too, nor the task of an array, which may score a run each.
RANKS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))


def shard_of(text: str, environ: Mapping[str, str] = os.environ) -> Shard:
    """The shard that "2/8" names, or that this process's rank implies; the whole for a single process.

    Raises:
        UsageError: the text is no shard.
    """
    if text:
        found = re.fullmatch(r"([1-9]\d{0,6})/([1-9]\d{0,6})", text.strip())
        if found is None or int(found[1]) > int(found[2]):
            raise UsageError(f"--shard {text}: wanted I/N with I from 1 to N, such as 2/8.")
        return Shard(int(found[1]) - 1, int(found[2]))
    rank, ranks = next((_pair(environ, names) for names in RANKS if all(name in environ for name in names)), (0, 1))
    return Shard(rank, ranks) if 0 <= rank < ranks else WHOLE


def _pair(environ: Mapping[str, str], names: tuple[str, str]) -> tuple[int, int]:
    return _number(environ, names[0]), _number(environ, names[1])


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else 0
