"""Failed: items that failed, each with what a reader needs to go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from genrun.runner.report.sections.clips import describe
from genrun.runner.report.text import MOST_MESSAGE_LETTERS, RUN_ROOT, address, cut
from genrun.runner.store.records import Record

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem

MOST_SHOWN = 100
"""Failed items that are told in full: thousands would make a page that is slow to open."""


@dataclass(frozen=True)
class FailedItem:
    """An item that failed.

    Attributes:
        item_id: the item.
        prompt: its prompt.
        where: seed, solver and other axes.
        kind: of the error.
        message: what failed.
        remedy: what to do, or "".
        log: path of the log relative to the run folder, or "".
        log_href: its address on the page, or "".
        attempt: how often it was tried.
    """

    item_id: str
    prompt: str
    where: str
    kind: str
    message: str
    remedy: str
    log: str
    log_href: str
    attempt: int


def collect_failures(
    items: Sequence[WorkItem], records: Mapping[str, Record], *, link_logs: bool
) -> tuple[FailedItem, ...]:
    """Return the first of the failed items.

    Args:
        items: the plan.
        records: by item id.
        link_logs: whether logs lie where the page can link them.
    """
    failed = ((item, record) for item in items if (record := records.get(item.id)) and record.status == "failed")
    return tuple(_failure(item, record, link_logs) for item, record in islice(failed, MOST_SHOWN))


def _failure(item: WorkItem, record: Record, link_logs: bool) -> FailedItem:
    error = record.error or {}
    log = str(error.get("log") or "")
    return FailedItem(
        item_id=item.id,
        prompt=item.prompt,
        where=describe(item),
        kind=str(error.get("kind") or "error"),
        message=cut(str(error.get("message") or "no message was recorded"), MOST_MESSAGE_LETTERS),
        remedy=str(error.get("remedy") or ""),
        log=log,
        log_href=address(log, RUN_ROOT) if log and link_logs else "",
        attempt=record.attempt,
    )
