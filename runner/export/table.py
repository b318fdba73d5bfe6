"""Everything that is known of a run's items as one table: a row for each, a column for each number."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.records import Record, Score

OUTCOME = ("status", "steps", "rounds", "nfe", "skipped", "elapsed_s", "device", "error")


def rows_of(
    items: Sequence[WorkItem],
    records: Mapping[str, Record],
    scores: Iterable[Score],
    files: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]]:
    """List the items with their inputs, costs and scores.

    Args:
        items: the plan.
        records: by item id.
        scores: rows of any metrics; those of sets are left out.
        files: item id -> its files, relative to the exported folder.

    Returns:
        One mapping an item, all with the same keys; None where nothing is known.
    """
    values: dict[str, dict[str, float | None]] = {}
    for score in scores:
        values.setdefault(score.metric, {})[score.item_id] = score.value
    axes = list(dict.fromkeys(axis for item in items for axis in item.axes))
    return [
        {
            "index": index,
            "file": " ".join(files.get(item.id, ())),
            "id": item.id,
            "prompt": item.prompt,
            "negative_prompt": item.negative_prompt,
            "seed": item.seed,
            **{axis: item.axes.get(axis) for axis in axes},
            **_outcome(records.get(item.id)),
            **{metric: by_item.get(item.id) for metric, by_item in values.items()},
        }
        for index, item in enumerate(items, 1)
    ]


def to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Write rows as CSV in UTF-8; what is not known is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    return text.getvalue().encode("utf-8", errors="surrogatepass")


def _outcome(record: Record | None) -> dict[str, Any]:
    if record is None:
        return dict.fromkeys(OUTCOME) | {"status": "pending"}
    sampler = record.sampler
    return {
        "status": record.status,
        "steps": sampler.num_steps if sampler else None,
        "rounds": sampler.rounds if sampler else None,
        "nfe": sampler.nfe if sampler else None,
        "skipped": sampler.skipped if sampler else None,
        "elapsed_s": record.elapsed_s,
        "device": record.device,
        "error": (record.error or {}).get("kind"),
    }
