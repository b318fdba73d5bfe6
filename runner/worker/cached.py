"""What a cache saved of an item, told where it saved nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genrun.runner.notes import CACHE_SAVED_NOTHING
from genrun.runner.store.records import Note

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.records import SamplerStats

LEAST = 1e-4
"""Share of the blocks below which nothing was saved: counts are rounded."""


def cache_notes(item: WorkItem, stats: SamplerStats) -> tuple[Note, ...]:
    """Return a note where an item's cache left out nothing: which, with which solver, and what the cause may be."""
    if not item.cache or not stats.blocks_full or stats.blocks < stats.blocks_full * (1 - LEAST):
        return ()
    kind, solver = item.cache["kind"], item.solver["kind"]
    workers = int(item.solver.get("workers") or 1)
    message = (
        f"cache {kind} left out none of {stats.blocks_full:,.0f} blocks on solver {solver}: {_cause(item, workers)}"
    )
    return (Note(CACHE_SAVED_NOTHING, message),)


def _cause(item: WorkItem, workers: int) -> str:
    """The likely cause, by what the cache goes by."""
    options = item.cache
    if workers > 1:
        seen = (
            "a parallel solver evaluates most steps once or twice, and only what a step's last round computed is used"
        )
        if "drift" in options:
            return f"{seen}, where its latents moved by no more than drift {options['drift']:g}"
        return (
            f"{seen}, where it changed by no more than threshold {options['threshold']:g}"
            if "threshold" in options
            else seen
        )
    if "threshold" in options:
        return f"from step to step everything changed by more than threshold {options['threshold']:g}"
    return f"none of {item.sampling.get('steps') or 'its'} steps lay where its options ({_options(options)}) let it"


def _options(cache: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in cache.items() if name != "kind" and value is not None)
