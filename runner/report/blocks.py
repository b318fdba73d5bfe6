"""How many evaluations of transformer blocks a cache left out, beside the same items without a cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from genrun.runner.store.records import Record

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem


def saved_blocks(items: Sequence[WorkItem], records: Mapping[str, Record]) -> dict[str, float]:
    """Return the share of blocks that each item with a cache saved, by item id, where both counts are known.

    An item is held against that of the same prompt, seed, sampling, solver and attention without a cache; where the run has
    none, against its own evaluations in full. The share is below 0 where a cache made the solver take more rounds than it
    saved.

    Args:
        items: the plan.
        records: by item id.
    """
    counts = dict(_counts(records))
    plain = {_computed(item): counts[item.id] for item in items if not item.cache and item.id in counts}
    shares = {}
    for item in items:
        full = plain.get(_computed(item)) or _full(records.get(item.id))
        if item.cache and item.id in counts and full:
            shares[item.id] = 1 - counts[item.id] / full
    return shares


def has_caches(items: Sequence[WorkItem]) -> bool:
    """Whether any item was sampled with a cache."""
    return any(item.cache for item in items)


def _counts(records: Mapping[str, Record]) -> Iterator[tuple[str, float]]:
    for item_id, record in records.items():
        if record.status == "done" and record.sampler is not None and record.sampler.blocks:
            yield item_id, record.sampler.blocks


def _full(record: Record | None) -> float:
    return record.sampler.blocks_full if record is not None and record.sampler is not None else 0.0


def _computed(item: WorkItem) -> tuple[str, str, str]:
    """How an item was computed, but for the cache."""
    return item.pair, repr(sorted(item.solver.items())), item.attention
