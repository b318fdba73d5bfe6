"""Results of items: the files that records name, whether they still count, and the moment in which they are published."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genrun.runner.errors import DamagedFileError, UnreadableError
from genrun.runner.store.files import WRONG_CONTENT, read_error, read_stamped, sha256_of, sync, write_error
from genrun.runner.store.records import Record, parse_record

LOST = "lost"
DAMAGED = "damaged_record"
"""Kinds of failure of items that were made, but whose files or record are lost."""

AGAIN = "It is made again by: genrun submit, genrun retry."

ASIDE = "damaged"
"""Folder of a run for files that were moved aside."""

FILES = ("media", "sha256", "media_bytes", "latents", "latents_sha256", "latents_bytes")
"""Fields of a record that describe its files."""

_REST = re.compile(r"[./][A-Za-z0-9][A-Za-z0-9_./-]{0,200}")


@dataclass(frozen=True)
class Tally:
    """Progress of a run, as counts of items. `pending` items have no record yet."""

    items: int
    done: int
    failed: int

    @property
    def pending(self) -> int:
        """Items without a record."""
        return self.items - self.done - self.failed


@dataclass(frozen=True)
class Survey:
    """All records of a run.

    Attributes:
        records: by item id; items of damaged records, and where files are checked those of lost files, as failed.
        damaged: record file -> what is wrong with it.
        unreadable: file or folder -> why it cannot be looked into.
    """

    records: dict[str, Record] = field(default_factory=dict)
    damaged: dict[Path, DamagedFileError] = field(default_factory=dict)
    unreadable: dict[Path, UnreadableError] = field(default_factory=dict)

    def hides(self, record: Path) -> bool:
        """Tell whether an item may have a record that cannot be read, in a file or folder without permission."""
        return bool(self.unreadable) and any(path in self.unreadable for path in (record, *record.parents[:2]))


def survey(run: Path, *, check_files: bool = False) -> Survey:
    """Read every record of the run in `run`, also of items that are in no plan; see `read_record`."""
    found = Survey()
    # Without pathlib, which takes longer than reading: `status` does this for every record of a run.
    with uncollected():
        for name in _record_files(run, found):
            _, part, file = name.rsplit("/", 2)
            item_id = file.removesuffix(".json")
            if part != item_id[:2]:
                told = DamagedFileError(f"{name}: lies in the folder of other records.", remedy=AGAIN)
                found.damaged[Path(name)] = told
                continue
            try:
                found.records[item_id] = read_record(run, name, item_id, check_files=check_files)
            except FileNotFoundError:
                continue
            except DamagedFileError as error:
                found.damaged[Path(name)] = error
                found.records[item_id] = damaged_record(item_id, error)
            except UnreadableError as error:
                found.unreadable[Path(name)] = error
    return found


def read_record(run: Path, path: str, item_id: str, *, check_files: bool = False) -> Record:
    """Read the record of an item.

    Args:
        run: the run folder.
        path: the record's file.
        item_id: the item.
        check_files: whether an item whose files are lost counts as failed.

    Raises:
        FileNotFoundError: there is none.
        DamagedFileError: the file holds no record of this item.
        UnreadableError: it cannot be looked into.
    """
    try:
        record = parse_record(read_stamped(path)[0], item_id)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(*error.args) from error
    except OSError as error:
        raise read_error(Path(path), error, remedy=AGAIN) from error
    except WRONG_CONTENT as error:
        raise DamagedFileError(f"{path}: is damaged: {error}.", remedy=AGAIN) from error
    return as_it_counts(run, record) if check_files else record


def as_it_counts(run: Path, record: Record) -> Record:
    """Return a record; where a file that it names is lost, that of an item which has to be made again.

    Raises:
        UnreadableError: whether a file is there cannot be told.
    """
    if record.status != "done":
        return record
    media, latents = _lost(run, record, "media"), record.latents and _lost(run, record, "latents")
    if not (media or latents):
        return record
    # What is still there is kept: saved latents are enough for genrun decode.
    gone: dict[str, Any] = {}
    for room, sha256, why in (("media", "sha256", media), ("latents", "latents_sha256", latents)):
        gone |= {room: None, sha256: None, f"{room}_bytes": None} if why else {}
    whys = [f"{name or 'media'} {why}" for name, why in ((record.media, media), (record.latents, latents)) if why]
    return _again(dataclasses.replace(record, **gone), "; ".join(whys), LOST)


def file_of(run: Path, record: Record, room: str) -> Path | None:
    """Return the file that a record names in `room`, "media" or "latents"; None for none, and for one of another item."""
    name = getattr(record, room)
    return run / name if name and is_inside(record.item_id, name) else None


def result_path(run: Path, room: str, item_id: str, suffix: str) -> Path:
    """Return where a file of an item lies in `room`, "media" or "latents"."""
    return run / room / item_id[:2] / f"{item_id}{suffix}"


def is_inside(item_id: str, name: str) -> bool:
    """Tell whether a path of a record is one that genrun gives to this item's files: never one outside the run."""
    room, _, rest = name.partition("/")
    own = f"{item_id[:2]}/{item_id}"
    if room not in ("media", "latents") or not rest.startswith(own):
        return False
    tail = rest[len(own) :]
    return _REST.fullmatch(tail) is not None and ".." not in tail


def lost_file(path: str, size: int | None) -> str:
    """Say why the file at `path` cannot be the one that was written, judging by its size alone; "" where it can.

    Raises:
        UnreadableError: whether it is there cannot be told.
    """
    try:
        # Links are rare, and a Path for each file takes longer than asking the system.
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode):
            found = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return "is not there"
    except OSError as error:
        told = read_error(Path(path), error)
        if isinstance(told, UnreadableError):
            raise told from error
        return "is not there"
    if not stat.S_ISREG(found.st_mode):
        return "is no file"
    if size is not None and found.st_size != size:
        return f"has {found.st_size:,} bytes, and was written with {size:,}"
    return "" if found.st_size else "is empty"


def is_as_recorded(run: Path, record: Record, room: str) -> bool:
    """Tell whether the file that a record names in `room`, "media" or "latents", is the one that was written, by reading it.

    Raises:
        UnreadableError: that cannot be told.
    """
    path = file_of(run, record, room)
    if path is None or lost_file(str(path), getattr(record, f"{room}_bytes")):
        return False
    try:
        return sha256_of(path) == (record.sha256 if room == "media" else record.latents_sha256)
    except OSError as error:
        raise read_error(path, error) from error


def written_since(path: Path, recorded_ns: int) -> bool:
    """Tell whether a file was written after its record, so that only its bytes show whether it is still the same.

    Reading every file would take minutes in a large run. Records are written last: an untouched file is older than its own.

    Raises:
        OSError: the file is not there.
    """
    return path.stat().st_mtime_ns >= recorded_ns


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Pause garbage collection, which takes a third of the time when a hundred thousand small objects are made."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def is_lost(record: Record) -> bool:
    """Tell whether an item was made and has to be made again, because its record or one of its files is lost."""
    return record.status == "failed" and (record.error or {}).get("kind") in (LOST, DAMAGED)


def damaged_record(item_id: str, error: DamagedFileError) -> Record:
    """Return a record in place of one that does not say what became of its item."""
    return _again(Record(item_id, "failed"), error.message, DAMAGED)


def record_names(run: Path) -> Iterator[str]:
    """List the files of a run's records, as far as its folders can be listed."""
    return _record_files(run, Survey())


def place_files(run: Path, record: Record, before: Record | None, staged_files: Mapping[Path, Path]) -> Record:
    """Give an item's new files their final names, and return the record to write. Call while holding the run's lock.

    Args:
        run: the run folder.
        record: the outcome.
        before: the item's record until now, which is not "done".
        staged_files: temporary file -> final file.

    Raises:
        StoreError: the run cannot be written.
    """
    if record.status != "done":
        # The files that an earlier attempt left are kept while the item fails.
        kept = (
            {} if before is None else {name: getattr(before, name) for name in FILES if getattr(record, name) is None}
        )
        record = dataclasses.replace(record, **kept)
    else:
        known = () if before is None else (before.media, before.latents)
        if before is not None and before.latents and not record.latents:
            # Before the record is written: a worker that is killed here comes back to this item.
            result_path(run, "latents", record.item_id, ".safetensors").unlink(missing_ok=True)
        named = {*staged_files.values(), *(run / name for name in (*known, record.media, record.latents) if name)}
        for room in ("media", "latents"):
            # Files that the item has from before its record was lost, and that get no successor.
            for path in (run / room / record.item_id[:2]).glob(f"{record.item_id}.*"):
                if path not in named:
                    set_aside(run, path)
    for temporary, final in staged_files.items():
        move_into_place(temporary, final)
    return record


def move_into_place(temporary: Path, final: Path) -> None:
    """Give a completely written file its final name, durably.

    Raises:
        StoreError: the folder cannot be written.
    """
    try:
        sync(temporary)
        temporary.replace(final)
        sync(final.parent)
    except OSError as error:
        raise write_error(final, error) from error


def remove_replaced(run: Path, record: Record, before: Record | None) -> None:
    """Remove the media file that a newly published one replaces; never anything but a media file."""
    if record.status == "done" and before is not None and before.media not in (None, record.media):
        path = run / str(before.media)
        if path.parent == run / "media" / record.item_id[:2]:
            path.unlink(missing_ok=True)


def set_aside(run: Path, path: Path) -> Path:
    """Move a file or folder of the run in `run` into its folder `damaged`, and return its new path.

    Raises:
        StoreError: the run cannot be written.
    """
    target = run / ASIDE / path.relative_to(run)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(target):
            target = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
        path.rename(target)
    except OSError as error:
        raise write_error(path, error) from error
    return target


def _lost(run: Path, record: Record, room: str) -> str:
    name = getattr(record, room)
    if not name or not is_inside(record.item_id, name):
        return "is named by no record" if name is None else "is not a file of this item"
    if not (record.sha256 if room == "media" else record.latents_sha256):
        return "has no SHA-256 in its record"
    return lost_file(f"{run}/{name}", getattr(record, f"{room}_bytes"))


def _again(record: Record, message: str, kind: str) -> Record:
    error = {"kind": kind, "message": message, "remedy": AGAIN, "rank": 0, "log": ""}
    return dataclasses.replace(record, status="failed", error=error)


def _record_files(run: Path, found: Survey) -> Iterator[str]:
    """List the files of records; folders that cannot be listed are noted in `found`."""
    for folder in _listed(f"{run}/items", found):
        for name in _listed(folder, found):
            if name.endswith(".json") and name[name.rfind("/") + 1] != ".":
                yield name


def _listed(folder: str, found: Survey) -> Iterable[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.path for entry in entries]
    except OSError as error:
        told = read_error(Path(folder), error)
        if isinstance(told, UnreadableError):
            found.unreadable[Path(folder)] = told
        return ()
