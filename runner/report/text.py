"""Words of the page: titles of metrics, rules of gates, paths, addresses, and texts that are cut to a length."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from urllib.parse import quote

from genrun.adapters.scorers import registry
from genrun.runner.job.schema import AUDIT

COST_TITLES = {"rounds": "rounds", "nfe": "NFE", "speedup": "N / rounds", "elapsed_s": "seconds an item"}
RULES = {"max": "at most", "min": "at least", "max_drop": "drops by at most", "max_rise": "rises by at most"}
DRIFT = "drift."
RUN_ROOT = "../"
"""Address of the run folder on its page."""

MOST_MESSAGE_LETTERS = 2000
"""Characters of a message that the page shows, so that thousands of items do not make it slow to open."""


def title_of(metric: str) -> str:
    """Return the heading of a metric, a part of one, a drift or a cost."""
    if metric == AUDIT:
        return "audited items within tolerance"
    if metric in COST_TITLES:
        return COST_TITLES[metric]
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


def address(path: str, root: str) -> str:
    """Return the address of a file of the run on the page; "" for a path that leaves the run folder.

    Args:
        path: relative to the run folder.
        root: what comes before it on the page.
    """
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts:
        return ""
    return root + quote(path)


def cut(words: str, most: int) -> str:
    """Return the first `most` letters of a longer text and how many more there are."""
    return words if len(words) <= most else f"{words[:most]}… and {len(words) - most:,} letters more"
