"""Results that count: those of earlier runs that a new run uses, and stale ones, whose items are set back.

Files of an earlier run are linked, or copied where the file system cannot link; as every file is replaced and never changed
in place, either run can be gone on with, or deleted, without the other.

A result is stale when its files are lost or changed, or not written as the job now says. Its record is set back to failed,
which is the truth, and its next workers make it again: from its latents where these are whole, else from the start.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.errors import DamagedFileError, GenrunError, MixError, UnreadableError
from genrun.runner.store.files import sha256_of, sync, write_error, write_whole
from genrun.runner.store.folder import RESULTS, RunFolder
from genrun.runner.store.planfile import differences, wants_latents, written_with
from genrun.runner.store.records import format_record
from genrun.runner.store.results import lost_file, set_aside, written_since
from genrun.runner.store.runs import runs_of
from genrun.runner.worker.failures import LostError, OutdatedError, describe

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.records import Record
    from genrun.runner.submit.resume import SubmittedJob


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


SHOWN = 3
"""Reasons that a message names."""


@dataclass(frozen=True)
class SetBack:
    """Items that were set back, to be made again.

    Attributes:
        lost: items whose files are gone or changed, each with the reason.
        outdated: items whose media file is written again from the latents.
    """

    lost: Mapping[str, str] = field(default_factory=dict)
    outdated: Sequence[str] = ()

    def lines(self) -> list[str]:
        """Say what was set back, and why."""
        told = []
        if self.lost:
            reasons = list(dict.fromkeys(self.lost.values()))
            more = f"; and {len(reasons) - SHOWN} more" if len(reasons) > SHOWN else ""
            told.append(f"{len(self.lost)} lost, made again: {'; '.join(reasons[:SHOWN])}{more}.")
        if self.outdated:
            told.append(f"{len(self.outdated)} are written again from their latents, as `output` has changed.")
        return told


def damage(path: Path, sha256: str | None, recorded_ns: int) -> str:
    """Say how a file differs from its record, or return "".

    A file is read only where it was written since its record was. One that may not be looked at counts as whole.

    Args:
        path: the file.
        sha256: what its record says.
        recorded_ns: when the record was written; 0 to read the file in any case.
    """
    try:
        if why := lost_file(str(path), None):
            return why
        is_changed = written_since(path, recorded_ns) and sha256_of(path) != sha256
    except (OSError, UnreadableError):
        return ""
    return "has changed since it was written" if is_changed else ""


@dataclass
class Stale:
    """Stale results of a run.

    Attributes:
        lost: as in `SetBack`.
        outdated: as in `SetBack`.
        changed: the records that put it right.
        refused: items whose files cannot be written as the job says, each with what differs.
    """

    lost: dict[str, str] = field(default_factory=dict)
    outdated: list[str] = field(default_factory=list)
    changed: list[Record] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)

    def mended(self, folder: RunFolder) -> SetBack:
        """Return the items to set back.

        Raises:
            MixError: there are refused items.
        """
        if self.refused:
            raise _refusal(folder, self.refused)
        return SetBack(self.lost, self.outdated)


def set_back(
    folder: RunFolder, items: Sequence[WorkItem], document: Mapping[str, Any], *, thorough: bool = False
) -> SetBack:
    """Set back items whose files are lost or not written as the job now says. Call while holding the run's lock.

    Args:
        folder: the run.
        items: those to look at.
        document: the job that the run is to follow.
        thorough: whether to read every file.

    Raises:
        MixError: the job asks for other files, and there are no latents to write them from; nothing was changed.
        StoreError: the run cannot be read or written.
    """
    found = find_stale(folder, items, document, thorough=thorough)
    mended = found.mended(folder)
    for record in found.changed:
        # Before the record: who is killed in between finds a file that is named and not there.
        latents = folder.latents_path(record.item_id)
        if record.latents is None and os.path.lexists(latents):
            set_aside(folder.path, latents)
        _replace(folder, record)
    return mended


def find_stale(
    folder: RunFolder, items: Sequence[WorkItem], document: Mapping[str, Any], *, thorough: bool = False
) -> Stale:
    """Find the stale results of a run, changing nothing; arguments and errors are those of `set_back`, save MixError."""
    needs_latents, wanted = wants_latents(dict(document)), written_with(document)
    old = stored(folder, document)
    before, new_latents = written_with(old), _saves_latents(document) and not _saves_latents(old)
    found = Stale()
    for item, record, recorded_ns in _done(folder, items):
        missing = _missing(folder, record, 0 if thorough else recorded_ns)
        others = differences(item, record, record.output or before, wanted) if record.media else []
        if item.audit and record.latents is None:
            missing["latents"] = f"the latents of {item.id}, which is audited now, were not kept"
        if "media" in missing or ("latents" in missing and (needs_latents or item.audit)):
            found.lost[item.id] = next(iter(missing.values()))
            found.changed.append(_lost(record, missing))
        elif others and (record.latents is None or "latents" in missing):
            found.refused[item.id] = others
        elif others:
            found.outdated.append(item.id)
            error = describe(OutdatedError(", ".join(others)), rank=0, log="")
            found.changed.append(replace(record, status="failed", error=error))
        elif "latents" in missing:
            found.changed.append(replace(record, latents=None, latents_sha256=None, latents_bytes=None))
        elif new_latents and record.latents is None:
            found.refused[item.id] = ["output.save_latents: False -> True"]
    return found


def stored(folder: RunFolder, document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the run's job; where that is damaged the new one, as records tell what their files were written with."""
    try:
        return folder.job_document()
    except DamagedFileError:
        return document


def _done(folder: RunFolder, items: Sequence[WorkItem]) -> list[tuple[WorkItem, Record, int]]:
    """List the items that are done, with their records and when these were written."""
    records = folder.records()
    found = ((item, records[item.id]) for item in items if item.id in records)
    done = [(item, record) for item, record in found if record.status == "done"]
    return [(item, record, folder.record_path(item.id).stat().st_mtime_ns) for item, record in done]


def _missing(folder: RunFolder, record: Record, recorded_ns: int) -> dict[str, str]:
    """Check the files of a done record: "media" or "latents" -> the file and its flaw."""
    if record.media is None:
        return {"media": f"{record.item_id} has no media file"}
    files = {"media": (record.media, record.sha256)}
    if record.latents is not None:
        files["latents"] = (record.latents, record.latents_sha256)
    wrong = {kind: (name, damage(folder.path / name, sha256, recorded_ns)) for kind, (name, sha256) in files.items()}
    return {kind: f"{name} {why}" for kind, (name, why) in wrong.items() if why}


def _saves_latents(document: Mapping[str, Any]) -> bool:
    """Tell whether a job itself asks for latents, rather than one of its metrics."""
    return bool((document.get("output") or {}).get("save_latents"))


def _lost(record: Record, found: Mapping[str, str]) -> Record:
    error = describe(LostError("; ".join(found.values())), rank=0, log="")
    record = replace(record, status="failed", error=error)
    if "latents" in found:
        record = replace(record, latents=None, latents_sha256=None, latents_bytes=None)
    return replace(record, media=None, sha256=None, media_bytes=None) if "media" in found else record


def _replace(folder: RunFolder, record: Record) -> None:
    with folder.lock():
        present = folder.record(record.item_id)
        if present is not None and present.status == "done":
            folder.replace_record(record)


def _refusal(folder: RunFolder, refused: Mapping[str, Sequence[str]]) -> MixError:
    fields = list(dict.fromkeys(change for changes in refused.values() for change in changes))
    listed = "".join(f"\n    {field}" for field in fields)
    return MixError(
        f"{folder.path}: {len(refused)} items are done, and their latents were not saved, so that their files cannot be "
        f"written as the job now says:{listed}",
        remedy="Restore the old values, or make all items again in a new run: genrun submit JOB --new.",
    )
