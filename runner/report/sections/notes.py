"""Notes: items that are done, but not quite as they were asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from genrun.runner.notes import NoteKind, group_notes
from genrun.runner.report.sections.clips import describe
from genrun.runner.report.text import MOST_MESSAGE_LETTERS, cut
from genrun.runner.store.records import Record

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem

MOST_SHOWN = 20
"""Items with a note of one kind that are listed: at its clip each item has its own."""


@dataclass(frozen=True)
class NotedItem:
    """An item that is done, and what has to be told about it.

    Attributes:
        item_id: the item.
        prompt: its prompt.
        where: seed, solver and other axes.
        message: what is so.
    """

    item_id: str
    prompt: str
    where: str
    message: str


@dataclass(frozen=True)
class Notes:
    """The notes of one kind.

    Attributes:
        about: what the kind means, and what to do.
        items: the first of the items.
        count: how many items there are.
    """

    about: NoteKind
    items: tuple[NotedItem, ...]
    count: int


def collect_notes(items: Sequence[WorkItem], records: Mapping[str, Record]) -> tuple[Notes, ...]:
    """Return what has to be told about done items, by kind.

    Args:
        items: the plan.
        records: by item id.
    """
    by_id = {item.id: item for item in items}
    return tuple(
        Notes(
            found.about,
            tuple(
                NotedItem(item_id, by_id[item_id].prompt, describe(by_id[item_id]), cut(message, MOST_MESSAGE_LETTERS))
                for item_id, message in found.items[:MOST_SHOWN]
            ),
            len({item_id for item_id, _ in found.items}),
        )
        for found in group_notes(records[item.id] for item in items if item.id in records)
    )
