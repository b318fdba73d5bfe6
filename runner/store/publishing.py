"""The moment in which an item becomes done: its files get their final names, then its record is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.store.files import sync, write_error
from genrun.runner.store.repair import set_aside

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.records import Record

FILES = ("media", "sha256", "media_bytes", "latents", "latents_sha256", "latents_bytes")
"""Fields of a record that are about its files."""


def publish(folder: RunFolder, record: Record, staged_files: Mapping[Path, Path]) -> bool:
    """Do what `RunFolder.publish` says."""
    with folder.lock():
        present = folder.record(record.item_id, check_files=True)
        if present is not None and present.status == "done":
            return False
        if present is not None:
            record = _inherit(folder, record, present)
        if record.status == "done":
            known = (present.media, present.latents) if present is not None else ()
            _clear_stale(folder, record, {*staged_files.values(), *(folder.path / name for name in known if name)})
        for temporary, final in staged_files.items():
            _move(temporary, final)
        folder.replace_record(record)
        if record.status == "done" and present is not None and present.media not in (None, record.media):
            _remove_media(folder, record.item_id, str(present.media))
    return True


def _remove_media(folder: RunFolder, item_id: str, name: str) -> None:
    """Remove a media file that another one has taken the place of; never anything but a media file."""
    path = folder.path / name
    if path.parent == folder.path / "media" / item_id[:2]:
        path.unlink(missing_ok=True)


def _inherit(folder: RunFolder, record: Record, before: Record) -> Record:
    """Keep what files an earlier attempt left while the item fails; remove its latents once it is done without any."""
    if record.status != "done":
        kept = {name: getattr(before, name) for name in FILES if getattr(record, name) is None}
        return dataclasses.replace(record, **kept)
    if before.latents and not record.latents:
        # Before the record is written: a worker that is killed here comes back to this item.
        folder.latents_path(record.item_id).unlink(missing_ok=True)
    return record


def _clear_stale(folder: RunFolder, record: Record, new: Collection[Path]) -> None:
    """Move files out of the way that the item has from before its record was lost, and that get no successor."""
    named = {*new, *(folder.path / name for name in (record.media, record.latents) if name)}
    for room in ("media", "latents"):
        for path in (folder.path / room / record.item_id[:2]).glob(f"{record.item_id}.*"):
            if path not in named:
                set_aside(folder, path)


def _move(temporary: Path, final: Path) -> None:
    try:
        sync(temporary)
        temporary.replace(final)
        sync(final.parent)
    except OSError as error:
        raise write_error(final, error) from error
