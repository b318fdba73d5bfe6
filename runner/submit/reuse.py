"""Results of a job's earlier runs that a new run of it can use: items of the same id, whose files are whole and fit.

Files are linked, or copied where the file system cannot link; as every file is replaced and never changed in place, either
run can be gone on with, or deleted, without the other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.errors import GenrunError, UnreadableError
from genrun.runner.store.files import sha256_of, sync, write_error, write_whole
from genrun.runner.store.folder import RESULTS, RunFolder
from genrun.runner.store.output_settings import differences, wants_latents, written_with
from genrun.runner.store.records import format_record
from genrun.runner.store.results import lost_file
from genrun.runner.store.runs import runs_of

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.records import Record
    from genrun.runner.submit.match import SubmittedJob

WORKERS = 8
"""Threads that read, link and write files: on network file systems nearly all of the time is waiting."""


@dataclass(frozen=True)
class EarlierItem:
    """An item that an earlier run has made.

    Attributes:
        folder: that run.
        record: its record there.
    """

    folder: RunFolder
    record: Record

    @property
    def files(self) -> list[tuple[Path, str | None]]:
        """Files of the item, absolute, each with its SHA-256."""
        record = self.record
        pairs = ((record.media, record.sha256), (record.latents, record.latents_sha256))
        return [(self.folder.path / name, sha256) for name, sha256 in pairs if name is not None]

    def is_whole(self) -> bool:
        """Read its files, and tell whether they are what was written."""
        try:
            return all(not lost_file(str(path), None) and sha256_of(path) == sha256 for path, sha256 in self.files)
        except (OSError, UnreadableError):
            return False


def reusable(job: SubmittedJob, job_folder: Path) -> dict[str, EarlierItem]:
    """Return the results that earlier runs of a job have of its items, by id, without reading any media file.

    Args:
        job: the job of the new run.
        job_folder: the folder of its runs; of two that have made an item the newer one counts.
    """
    missing = {item.id: item for item in job.items}
    found: dict[str, EarlierItem] = {}
    for path in runs_of(job_folder):
        if not missing:
            break
        folder = RunFolder(path.resolve())
        fits = _fits(folder, job)
        for item_id in [item_id for item_id in folder.recorded() if item_id in missing]:
            with contextlib.suppress(GenrunError):
                record = folder.record(item_id)
                if record is not None and fits(missing[item_id], record):
                    found[item_id] = EarlierItem(folder, replace(record, promise=missing[item_id].promise))
                    del missing[item_id]
    return found


def fill(new: RunFolder, job: SubmittedJob, job_folder: Path) -> int:
    """Put the results of a job's earlier runs into a new run's folder; return the number of items.

    Raises:
        StoreError: the new folder cannot be written.
    """
    found = reusable(job, job_folder)
    with ThreadPoolExecutor(WORKERS) as readers:
        whole = readers.map(EarlierItem.is_whole, found.values())
        reused = {item_id: each for (item_id, each), is_whole in zip(found.items(), whole, strict=True) if is_whole}
    with ThreadPoolExecutor(WORKERS) as takers:
        count = sum(takers.map(lambda each: _take(new, each), reused.values()))
    for room in RESULTS:
        for folder in (new.path / room).glob("*"):
            sync(folder)
    _take_encodings(new, [item for item in job.items if item.id not in reused], job_folder)
    return count


def _fits(folder: RunFolder, job: SubmittedJob) -> Callable[[WorkItem, Record], bool]:
    """Return a function that tells whether a record of an earlier run can be used as it is."""
    wanted, needs_latents = written_with(job.document), wants_latents(dict(job.document))
    try:
        before: Mapping[str, object] | None = written_with(folder.job_document())
    except (GenrunError, AttributeError):
        before = None

    def fits(item: WorkItem, record: Record) -> bool:
        written = record.output or before
        return (
            record.item_id == item.id
            and record.status == "done"
            and _is_in_place(folder, item, record)
            and not ((needs_latents or item.audit) and record.latents is None)
            and written is not None
            and not differences(item, record, written, wanted)
        )

    return fits


def _is_in_place(folder: RunFolder, item: WorkItem, record: Record) -> bool:
    """Tell whether a record names the files that its item has: names that lead elsewhere are not followed."""
    media = None if record.media is None else folder.media_path(item, Path(record.media).suffix)
    latents = None if record.latents is None else folder.latents_path(item.id)
    names = ((media, record.media), (latents, record.latents))
    return media is not None and all(path is None or folder.relative(path) == name for path, name in names)


def _take(new: RunFolder, found: EarlierItem) -> bool:
    record = replace(found.record, reused_from=found.record.reused_from or found.folder.path.name)
    try:
        for path, _ in found.files:
            _link(path, new.path / found.folder.relative(path))
        path = new.record_path(record.item_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        # The new folder is not visible to others yet, so its files need no temporary names.
        write_whole(path, format_record(record))
        sync(path)
    except OSError as error:
        raise write_error(new.path, error) from error
    return True


def _take_encodings(new: RunFolder, items: Iterable[WorkItem], job_folder: Path) -> None:
    """Link the encodings of prompts that are still to be sampled; what is missing or damaged is made again."""
    from genrun.runner.worker.prompts import is_whole, key_of

    missing = {key_of(item) for item in items}
    for folder in _runs_with_encodings(job_folder):
        for key in list(missing):
            path = folder.encodings_path(key)
            if is_whole(path):
                with contextlib.suppress(OSError):
                    _link(path, new.encodings_path(key))
                    missing.discard(key)
        if not missing:
            return


def _runs_with_encodings(job_folder: Path) -> Iterator[RunFolder]:
    folders = (RunFolder(path.resolve()) for path in runs_of(job_folder))
    return (folder for folder in folders if folder.encodings_lock.parent.is_dir())


def _link(source: Path, target: Path) -> None:
    """Give a file a second name; where that cannot be done, copy it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
