"""Checks a run: every planned item has its record, every record its files, every file its record."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from genrun.runner.errors import StoreError
from genrun.runner.store.lease import Holding, holdings, looks_alive
from genrun.runner.work.ending import sha256_of

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.records import Record


@dataclass(frozen=True)
class Flaw:
    """One thing that is wrong with a run.

    Attributes:
        kind: missing, failed, unreadable, unplanned, lost, changed, orphan, temporary or lease.
        path: the file, relative to the run folder, or the item's id.
        message: what is wrong.
    """

    kind: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def verify(folder: RunFolder) -> list[Flaw]:
    """Return everything that is wrong with a run, reading every file; empty for a run that is whole.

    Raises:
        StoreError: the plan cannot be read.
    """
    records, flaws = _read_records(folder)
    planned = {item.id for item in folder.items()}
    flaws += _unfinished(folder, planned, records)
    for item_id, record in records.items():
        if item_id not in planned:
            flaws.append(Flaw("unplanned", item_id, "has a record, but is not in plan.jsonl"))
        flaws += _files_of(folder, record)
    flaws += _orphans(folder, records)
    flaws += [
        Flaw("temporary", folder.relative(path), "left behind by a killed worker; the next submit removes it")
        for path in folder.temporary_files()
    ]
    return flaws + [Flaw("lease", item_id, _held(holding)) for item_id, holding in holdings(folder).items()]


def _read_records(folder: RunFolder) -> tuple[dict[str, Record], list[Flaw]]:
    records: dict[str, Record] = {}
    flaws: list[Flaw] = []
    for path in folder.record_files():
        try:
            record = folder.record(path.stem)
        except StoreError as error:
            flaws.append(Flaw("unreadable", folder.relative(path), error.message))
            continue
        if record is None or folder.record_path(record.item_id) != path:
            flaws.append(Flaw("unreadable", folder.relative(path), "holds the record of another item"))
        else:
            records[record.item_id] = record
    return records, flaws


def _unfinished(folder: RunFolder, planned: set[str], records: dict[str, Record]) -> Iterator[Flaw]:
    for item_id in sorted(planned):
        record = records.get(item_id)
        if record is None and not folder.record_path(item_id).exists():
            yield Flaw("missing", item_id, "has no record: it was never finished; genrun retry makes it")
        elif record is not None and record.status == "failed":
            why = (record.error or {}).get("kind", "no reason given")
            yield Flaw("failed", item_id, f"failed ({why}); genrun retry tries again")


def _files_of(folder: RunFolder, record: Record) -> Iterator[Flaw]:
    if record.status == "done" and record.media is None:
        yield Flaw("lost", record.item_id, "its record names no media file")
    for name, sha256 in ((record.media, record.sha256), (record.latents, record.latents_sha256)):
        if name is None:
            continue
        path = folder.path / name
        if not path.is_file():
            yield Flaw("lost", name, "is named by a record, but is not there")
        elif sha256_of(path) != sha256:
            yield Flaw("changed", name, "is not the file that was written: its SHA-256 differs from its record's")


def _orphans(folder: RunFolder, records: dict[str, Record]) -> Iterator[Flaw]:
    named = {name for record in records.values() for name in (record.media, record.latents)}
    for path in folder.result_files():
        if folder.relative(path) not in named:
            yield Flaw("orphan", folder.relative(path), "no record names this file")


def _held(holding: Holding) -> str:
    if holding.owner is None or not looks_alive(holding, time.time_ns()):
        return "is still held by a worker that was killed; the next submit lets it go"
    process = holding.owner.process
    return f"a worker still holds this item: process {process.pid} on {process.host}, {holding.owner.job}"
