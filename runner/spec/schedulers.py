"""Names of the schedulers that diffusers has, read from its source so that neither it nor torch is imported."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

_CLASS = re.compile(r"^class (\w+Scheduler)\(", re.MULTILINE)


@cache
def scheduler_names() -> tuple[str, ...]:
    """Every scheduler class of the installed diffusers, sorted; empty when it is not installed."""
    found = importlib.util.find_spec("diffusers")
    if found is None or found.origin is None:
        return ()
    folder = Path(found.origin).parent / "schedulers"
    texts = (path.read_text(encoding="utf-8") for path in sorted(folder.glob("scheduling_*.py")))
    return tuple(sorted({name for text in texts for name in _CLASS.findall(text)}))
