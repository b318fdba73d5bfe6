"""What metrics, costs and runs are called on the page."""

from __future__ import annotations

from pathlib import Path

from genrun.adapters.scorers import registry

COSTS = {"rounds": "rounds", "nfe": "NFE", "speedup": "N / rounds", "elapsed_s": "seconds an item"}
RULES = {"max": "at most", "min": "at least", "max_drop": "drops by at most", "max_rise": "rises by at most"}
DRIFT = "drift."


def title_of(metric: str) -> str:
    """The heading of a metric, a part of one, a drift or a cost."""
    if metric in COSTS:
        return COSTS[metric]
    if metric.startswith(DRIFT):
        return f"drift: {title_of(metric.removeprefix(DRIFT))}"
    base, _, part = metric.partition(".")
    title = registry.get(base).title if base in registry.names() else base
    return f"{title}: {part.replace('_', ' ')}" if part else title


def shown_path(path: Path) -> str:
    """Return `path` relative to the working directory where that is shorter to type, else absolute."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
