"""Which part of a run this process scores: told, or by its rank under torchrun or srun, or its task of a Slurm array."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from genrun.runner.errors import UsageError
from genrun.runner.scoring.shard import WHOLE, Shard

RANKS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))
ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT")


def shard_of(text: str, environ: Mapping[str, str] = os.environ) -> Shard:
    """The shard that "2/8" names, or that the environment implies: the ranks of each task of an array share its part.

    Raises:
        UsageError: the text is no shard.
    """
    if text:
        found = re.fullmatch(r"([1-9]\d{0,6})/([1-9]\d{0,6})", text.strip())
        if found is None or int(found[1]) > int(found[2]):
            raise UsageError(f"--shard {text}: wanted I/N with I from 1 to N, such as 2/8.")
        return Shard(int(found[1]) - 1, int(found[2]))
    rank, ranks = next((_pair(environ, names) for names in RANKS if names[0] in environ), (0, 1))
    task, first, tasks = (_number(environ, name) for name in ARRAY)
    index, count = (task - first, tasks) if tasks > 1 and 0 <= task - first < tasks else (0, 1)
    return Shard(index * ranks + rank, count * ranks) if 0 <= rank < ranks else WHOLE


def _pair(environ: Mapping[str, str], names: tuple[str, str]) -> tuple[int, int]:
    return _number(environ, names[0]), _number(environ, names[1])


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else 0
