"""Repair of a run before workers start: damaged files are moved aside to be made again, leftovers of dead processes removed.

Nothing that may be of use is deleted: a damaged file is kept under the same name in the run's folder `damaged`. A file
that may not be read is left alone and stops the work: see `UnreadableError`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.runner.errors import DamagedFileError, UnreadableError
from genrun.runner.store.files import (
    atomic_write,
    is_left_behind,
    is_temporary,
    left_behind_in,
    remove,
    remove_left_behind,
    sha256_of,
)
from genrun.runner.store.folder import FOLDERS, RESULTS, RunFolder
from genrun.runner.store.lease import SHOWN
from genrun.runner.store.results import DAMAGED, file_of, is_lost, lost_file, set_aside, written_since
from genrun.runner.store.scores import whole_lines
from genrun.runner.store.verify import damaged_encodings, damaged_extras

if TYPE_CHECKING:
    from genrun.runner.store.records import Record

READ_ANYWAY = 256 << 20
"""Bytes of results up to which all are read, in about a second; of larger runs, those written since their record."""

NIGHTS, HISTORY = ".nights", ".history.sqlite3."
"""Folder of a job for its nights' locks, and the prefix of temporary files of the history's index."""


def repair(folder: RunFolder, items: Sequence[str] = ()) -> list[str]:
    """Move damaged files out of the way, and return a line about each.

    Args:
        folder: the run, in which nobody works.
        items: ids of items whose files are read through in any case.

    Raises:
        UnreadableError: something cannot be looked into.
        StoreError: the run cannot be written.
    """
    notes = [*_renew_environment(folder), *_move_extras(folder)]
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
    # Lost files are told of where their items are set back, before workers start.
    return notes + [f"{item_id}: {why}. It is made again." for item_id, why in whys.items()]


def clear_folders(folder: RunFolder) -> Iterator[str]:
    """Move files that stand in the place of folders aside, and folders that stand in the place of leases."""
    for name in FOLDERS:
        room = folder.path / name
        if os.path.lexists(room) and not room.is_dir():
            yield _moved(folder, room, "is no folder")
    for name in RESULTS:
        for part in _entries(folder.path / name):
            if len(part.name) == 2 and not part.is_dir():
                yield _moved(folder, part, "is no folder")
    for path in _entries(folder.leases):
        if path.is_dir() and not path.is_symlink():
            yield _moved(folder, path, "is no lease")


def remove_from_run(folder: RunFolder) -> None:
    """Remove leftovers of dead processes from a run. Call when no worker holds a lease of it."""
    # A worker of this machine that began just now keeps its files; one of another machine holds a lease before it has any.
    temporary = [path for path in folder.temporary_files() if is_left_behind(path, 0.0)]
    shown = [path for ending in SHOWN for path in folder.leases.glob(f".*{ending}")]
    for path in [*temporary, *shown, *_superseded(folder)]:
        remove(path)


def remove_below(folder: Path) -> None:
    """Remove leftovers below a folder that needs no lease: that of the report, or of the scores."""
    for path in list(left_behind_in(folder)):
        remove(path)


def remove_from_job(job_folder: Path) -> None:
    """Remove leftovers next to the runs of a job: unfinished run folders, links, and files of nights.

    Call while holding the job's lock.
    """
    for folder in (job_folder, job_folder / NIGHTS):
        remove_left_behind(folder)
    # The folder of all runs may be anybody's.
    remove_left_behind(job_folder.parent, HISTORY)


def _renew_environment(folder: RunFolder) -> Iterator[str]:
    env = folder.path / "env.json"
    try:
        folder.environment()
    except DamagedFileError as error:
        if os.path.lexists(env):
            set_aside(folder.path, env)
        folder.write_environment()
        yield f"{error.message} Written again, of this machine as it is now; each record has its own versions."


def _move_extras(folder: RunFolder) -> Iterator[str]:
    """Move damaged files of launches, nights and encodings aside, and broken lines out of score files."""
    for path, error in (*damaged_extras(folder), *damaged_encodings(folder, READ_ANYWAY)):
        if isinstance(error, UnreadableError):
            raise error
        whole = whole_lines(path) if path.parent.name == "scores" and path.is_file() else ""
        target = set_aside(folder.path, path)
        if whole:
            atomic_write(path, whole.encode())
        yield f"{error.message} It was moved to {folder.relative(target)}."


def _set_changed_aside(folder: RunFolder, items: Sequence[str]) -> Iterator[str]:
    """Move results that have changed since they were written aside: their items then count as lost."""
    done = {item_id: record for item_id, record in folder.records().items() if record.status == "done"}
    named = [(record, room) for record in done.values() for room in ("media", "latents")]
    found = [(record, room, path) for record, room in named if (path := file_of(folder.path, record, room))]
    found = [each for each in found if not lost_file(str(each[2]), getattr(each[0], f"{each[1]}_bytes"))]
    small = sum(path.stat().st_size for _, _, path in found) <= READ_ANYWAY
    for record, room, path in found:
        own = folder.record_path(record.item_id)
        if not (small or record.item_id in items or written_since(path, own.stat().st_mtime_ns)):
            continue
        if sha256_of(path) == _sha256(record, room):
            if not small:
                # Found to be as it was, such as a copy: not read again the next time.
                os.utime(own)
            continue
        # A worker that is publishing has moved its file, and not yet written its record.
        with folder.lock():
            if folder.record(record.item_id) == record and sha256_of(path) != _sha256(record, room):
                yield _moved(folder, path, "is not the file that was written: its SHA-256 differs from its record's")


def _clear_places(folder: RunFolder, items: Sequence[str]) -> None:
    """Make room for the files of items that are made again: a rename does not replace a folder."""
    for item_id in items:
        for place in (folder.record_path(item_id), folder.latents_path(item_id)):
            if place.is_dir():
                set_aside(folder.path, place)
        for place in (folder.path / "media" / item_id[:2]).glob(f"{item_id}.*"):
            if place.is_dir() and not is_temporary(place.name):
                set_aside(folder.path, place)


def _sha256(record: Record, room: str) -> str | None:
    return record.sha256 if room == "media" else record.latents_sha256


def _moved(folder: RunFolder, path: Path, why: str) -> str:
    target = set_aside(folder.path, path)
    return f"{folder.relative(path)} {why}. It was moved to {folder.relative(target)}."


def _entries(room: Path) -> list[Path]:
    try:
        return sorted(room.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _superseded(folder: RunFolder) -> Iterator[Path]:
    """List media of done items that have another file in their place: of a worker killed between the two."""
    found: dict[Path, list[Path]] = {}
    for path in folder.result_files():
        found.setdefault(path.with_suffix(""), []).append(path)
    for stem, paths in found.items():
        record = folder.record(stem.name) if len(paths) > 1 else None
        if record is not None and record.status == "done" and record.media is not None:
            named = folder.path / record.media
            yield from (path for path in paths if path != named and named in paths)
