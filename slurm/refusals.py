"""Which option of sbatch Slurm's words about a refused job are about."""

from __future__ import annotations

import re
from collections.abc import Container

_NAMED = re.compile(r"option '--([a-z0-9-]+)|--([a-z0-9-]+) specification")
_WORDS = (
    ("partition", r"partition"),
    ("time", r"time limit"),
    ("array", r"job array|array spec"),
    ("account", r"\baccount"),
    ("qos", r"\bqos\b"),
    ("constraint", r"feature"),
    ("reservation", r"reservation"),
    ("licenses", r"license"),
    ("dependency", r"dependency"),
    ("mem", r"memory"),
    ("gpus-per-node", r"gres|gpu|tres"),
    ("nodes", r"node count|more nodes|processors"),
)
_SHAPE = re.compile(r"node configuration is not available", re.IGNORECASE)


def blame(message: str, given: Container[str]) -> str:
    """Return the option that Slurm's message is about, or "" when it cannot be told.

    Args:
        message: of a failed sbatch.
        given: the options of the job.
    """
    named = _NAMED.search(message)
    if named:
        return named[1] or named[2]
    for option, words in _WORDS:
        if re.search(words, message, re.IGNORECASE):
            return option
    if _SHAPE.search(message):
        return next((option for option in ("gpus-per-node", "mem", "cpus-per-task", "nodes") if option in given), "")
    return ""
