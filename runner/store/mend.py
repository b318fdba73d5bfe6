"""Mending a run before workers start: what is damaged is moved out of the way, so that it is made again.

Nothing is deleted. What stood in the place of a good file lies afterwards under the same name in `damaged/` of the run. What
may not be looked into is left alone, and stops the work: see `UnreadableError`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.errors import DamagedFileError, UnreadableError
from genrun.runner.store.files import atomic_write, is_temporary, write_error
from genrun.runner.store.notes import damaged_encodings, damaged_extras
from genrun.runner.store.records import Record
from genrun.runner.store.scores import whole_lines
from genrun.runner.store.survey import DAMAGED, file_of, is_lost, lost_file
from genrun.runner.worker.finish import sha256_of

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder

ASIDE = "damaged"
"""Folder of a run for what was in the way."""

ROOMS = ("items", "media", "latents", "prompts", "leases", "logs", "scores", "report")
READ_ANYWAY = 256 << 20
"""A run with no more bytes of results is read through whenever it is mended; of larger ones, what was written since."""


def mend(folder: RunFolder, items: Sequence[str] = ()) -> list[str]:
    """Move what is damaged out of the way, and say what was done.

    Args:
        folder: the run, in which nobody works.
        items: ids of items whose files are read through in any case.

    Raises:
        UnreadableError: something cannot be looked into.
        StoreError: the run cannot be written.
    """
    notes = [*_renew_environment(folder), *_clear_extras(folder)]
    notes += _set_changed_aside(folder, items)
    records = folder.records(check_files=True)
    again = [item_id for item_id, record in records.items() if is_lost(record)]
    _clear_places(folder, again)
    errors = {item_id: records[item_id].error or {} for item_id in again}
    whys = {
        item_id: str(error.get("message")).rstrip(".")
        for item_id, error in errors.items()
        if error.get("kind") == DAMAGED
    }
    # Of lost files `submit.stale` tells, which sets their items back.
    return notes + [f"{item_id}: {why}. It is made again." for item_id, why in whys.items()]


def set_aside(folder: RunFolder, path: Path) -> Path:
    """Move a file or folder of the run into `damaged/`, and return where it lies.

    Raises:
        StoreError: the run cannot be written.
    """
    target = folder.path / ASIDE / folder.relative(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(target):
            target = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
        path.rename(target)
    except OSError as error:
        raise write_error(path, error) from error
    return target


def clear_rooms(folder: RunFolder) -> Iterator[str]:
    """Move what is no folder out of the place of one, and what is no file out of the place of one."""
    for name in ROOMS:
        room = folder.path / name
        if os.path.lexists(room) and not room.is_dir():
            yield _told(folder, room, "is no folder")
    for name in ("items", "media", "latents", "prompts"):
        for part in _entries(folder.path / name):
            if len(part.name) == 2 and not part.is_dir():
                yield _told(folder, part, "is no folder")
    for path in _entries(folder.leases):
        if path.is_dir() and not path.is_symlink():
            yield _told(folder, path, "is no lease")


def _renew_environment(folder: RunFolder) -> Iterator[str]:
    env = folder.path / "env.json"
    try:
        folder.environment()
    except DamagedFileError as error:
        if os.path.lexists(env):
            set_aside(folder, env)
        folder.write_environment()
        yield f"{error.message} Written again, of this machine as it is now; each record has its own versions."


def _clear_extras(folder: RunFolder) -> Iterator[str]:
    """Move notes of launches and nights that are damaged out of the way, and broken lines out of score files."""
    for path, error in (*damaged_extras(folder), *damaged_encodings(folder, READ_ANYWAY)):
        if isinstance(error, UnreadableError):
            raise error
        is_scores = path.parent.name == "scores" and path.is_file()
        whole = whole_lines(path) if is_scores else ""
        target = set_aside(folder, path)
        if whole:
            atomic_write(path, whole.encode())
        yield f"{error.message} It was moved to {folder.relative(target)}."


def _set_changed_aside(folder: RunFolder, items: Sequence[str]) -> Iterator[str]:
    """Move results that are not what was written out of the way: then they are lost, for all to see."""
    done = {item_id: record for item_id, record in folder.records().items() if record.status == "done"}
    named = [(record, room) for record in done.values() for room in ("media", "latents")]
    found = [(record, room, path) for record, room in named if (path := file_of(folder.path, record, room))]
    found = [each for each in found if not lost_file(str(each[2]), getattr(each[0], f"{each[1]}_bytes"))]
    small = sum(path.stat().st_size for _, _, path in found) <= READ_ANYWAY
    for record, room, path in found:
        if not (small or record.item_id in items or _is_newer(path, folder.record_path(record.item_id))):
            continue
        if sha256_of(path) == _sha256(record, room):
            if not small:
                # Found to be as it was, such as a copy: not read again the next time.
                os.utime(folder.record_path(record.item_id))
            continue
        # A worker that is publishing has moved its file, and not yet written its record.
        with folder.lock():
            if folder.record(record.item_id) == record and sha256_of(path) != _sha256(record, room):
                yield _told(folder, path, "is not the file that was written: its SHA-256 differs from its record's")


def _clear_places(folder: RunFolder, items: Sequence[str]) -> None:
    """Make room for the files of items that are made again: a rename does not replace a folder."""
    for item_id in items:
        for place in (folder.record_path(item_id), folder.latents_path(item_id)):
            if place.is_dir():
                set_aside(folder, place)
        for place in (folder.path / "media" / item_id[:2]).glob(f"{item_id}.*"):
            if place.is_dir() and not is_temporary(place.name):
                set_aside(folder, place)


def _is_newer(path: Path, record: Path) -> bool:
    """Whether a file was written after its record, which is written last."""
    return path.stat().st_mtime_ns > record.stat().st_mtime_ns


def _sha256(record: Record, room: str) -> str | None:
    return record.sha256 if room == "media" else record.latents_sha256


def _told(folder: RunFolder, path: Path, why: str) -> str:
    target = set_aside(folder, path)
    return f"{folder.relative(path)} {why}. It was moved to {folder.relative(target)}."


def _entries(room: Path) -> list[Path]:
    try:
        return sorted(room.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
