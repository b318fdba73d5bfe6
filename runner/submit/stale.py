"""Stale results: files of a run that are lost or changed, or not written as its job now says; their items are set back.

Such an item's record is set back to failed, which is the truth, and its next workers make it again: from its latents where
these are whole, else from the start.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.errors import DamagedFileError, MixError, UnreadableError
from genrun.runner.store.files import sha256_of
from genrun.runner.store.output_settings import differences, wants_latents, written_with
from genrun.runner.store.results import lost_file, set_aside, written_since
from genrun.runner.worker.failures import LostError, OutdatedError, describe

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.records import Record

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
