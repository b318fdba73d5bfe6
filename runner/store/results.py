"""Every record of a run as it counts: one that is damaged, or whose files are lost, is that of an item to make again."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from genrun.runner.errors import DamagedFileError, UnreadableError
from genrun.runner.store.reading import WRONG_CONTENT, read_error, read_json, read_stamped
from genrun.runner.store.records import Note, Record, SamplerStats

LOST = "lost"
DAMAGED = "damaged_record"
"""Kinds of failure of items that were made, and of which that cannot be shown any more."""

AGAIN = "It is made again by: genrun submit, genrun retry."
FIELDS = frozenset(each.name for each in fields(Record))
STATS = frozenset(each.name for each in fields(SamplerStats))
TEXTS = ("host", "job", "device", "finished_at")
TOLD = frozenset({"kind", "message", "remedy", "log"})
"""What every error has."""

OPTIONAL_TEXTS = ("media", "sha256", "latents", "latents_sha256")
_REST = re.compile(r"[./][A-Za-z0-9][A-Za-z0-9_./-]{0,200}")


@dataclass(frozen=True)
class Survey:
    """What the records of a run say.

    Attributes:
        records: by item id; items of damaged records, and where files are checked those of lost files, as failed.
        damaged: record file -> what is wrong with it.
        unreadable: file or folder -> why it cannot be looked into.
    """

    records: dict[str, Record] = field(default_factory=dict)
    damaged: dict[Path, DamagedFileError] = field(default_factory=dict)
    unreadable: dict[Path, UnreadableError] = field(default_factory=dict)

    def hides(self, record: Path) -> bool:
        """Whether a record may be there, but in a file or folder that cannot be looked into."""
        return bool(self.unreadable) and any(path in self.unreadable for path in (record, *record.parents[:2]))


def survey(run: Path, *, check_files: bool = False) -> Survey:
    """Read every record of the run in `run`, also of items that are in no plan; see `read_record`."""
    with uncollected():
        return _survey(run, check_files=check_files)


def _survey(run: Path, *, check_files: bool) -> Survey:
    found = Survey()
    # Without pathlib, which takes longer than reading: `status` does this for every record of a run.
    for name in _record_files(run, found):
        _, part, file = name.rsplit("/", 2)
        item_id = file.removesuffix(".json")
        if part != item_id[:2]:
            found.damaged[Path(name)] = DamagedFileError(f"{name}: lies in the folder of other records.", remedy=AGAIN)
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
    """Return a record, or where a file that it names is lost that of an item which is to be made again.

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


def _lost(run: Path, record: Record, room: str) -> str:
    if file_of(run, record, room) is None:
        return "is named by no record" if getattr(record, room) is None else "is not a file of this item"
    if not (record.sha256 if room == "media" else record.latents_sha256):
        return "has no SHA-256 in its record"
    return lost_file(f"{run}/{getattr(record, room)}", getattr(record, f"{room}_bytes"))


def lost_file(path: str, size: int | None) -> str:
    """Say why the file at `path` cannot be the one that was written, going by its size alone; "" where it can.

    Raises:
        UnreadableError: whether it is there cannot be told.
    """
    try:
        found = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return "is not there"
    except OSError as error:
        told = read_error(Path(path), error)
        if isinstance(told, UnreadableError):
            raise told from error
        return "is not there"
    if found.st_mode & 0o170000 != 0o100000:
        return "is no file"
    if size is not None and found.st_size != size:
        return f"has {found.st_size:,} bytes, and was written with {size:,}"
    return "" if found.st_size else "is empty"


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Put garbage collection off: it takes a third of the time in which a hundred thousand small objects are made."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def is_lost(record: Record) -> bool:
    """Whether an item was made, and is to be made again as its record or a file of it is lost."""
    return record.status == "failed" and (record.error or {}).get("kind") in (LOST, DAMAGED)


def damaged_record(item_id: str, error: DamagedFileError) -> Record:
    """Stand in for a record that does not tell what came of its item."""
    return _again(Record(item_id, "failed"), error.message, DAMAGED)


def format_record(record: Record) -> bytes:
    """Return a record as JSON."""
    return (json.dumps(dataclasses.asdict(record), indent=1, allow_nan=False) + "\n").encode()


def parse_record(data: bytes, item_id: str | None = None) -> Record:
    """Read a record from JSON. Keys that this version does not know are left out.

    Args:
        data: the file.
        item_id: the item whose record it should be.

    Raises:
        ValueError, TypeError: it is not one.
    """
    found = read_json(data)
    if not isinstance(found, dict):
        raise TypeError(f"holds {type(found).__name__}, not an object")
    known = {name: value for name, value in found.items() if name in FIELDS}
    for name in ("item_id", "status"):
        if name not in known:
            raise ValueError(f"it lacks {name!r}")
    if item_id is not None and known["item_id"] != item_id:
        raise ValueError(f"holds the record of another item: {known['item_id']!r:.60}")
    if known.get("sampler") is not None:
        known["sampler"] = _stats(known["sampler"])
    for name in ("memory_bytes", "saving"):
        if name in known:
            known[name] = tuple(known[name])
    if "notes" in known:
        known["notes"] = tuple(_note(each) for each in known["notes"])
    record = Record(**known)
    _check(record)
    return record


def is_inside(item_id: str, name: str) -> bool:
    """Whether a path of a record is one that genrun gives to this item's files: never one outside the run."""
    room, _, rest = name.partition("/")
    own = f"{item_id[:2]}/{item_id}"
    if room not in ("media", "latents") or not rest.startswith(own):
        return False
    tail = rest[len(own) :]
    return _REST.fullmatch(tail) is not None and ".." not in tail


def _check(record: Record) -> None:
    """Refuse values that no genrun writes, so that whoever uses a record need not look at them again."""
    _want(isinstance(record.item_id, str), "item_id", record.item_id)
    _want(record.status in ("done", "failed"), "status", record.status)
    _want(_is_count(record.attempt), "attempt", record.attempt)
    for name in TEXTS:
        _want(isinstance(getattr(record, name), str), name, getattr(record, name))
    for name in OPTIONAL_TEXTS:
        _want(isinstance(getattr(record, name), str | None), name, getattr(record, name))
    for name in ("media_bytes", "latents_bytes"):
        _want(getattr(record, name) is None or _is_count(getattr(record, name), 0), name, getattr(record, name))
    _want(_is_number(record.elapsed_s) and record.elapsed_s >= 0, "elapsed_s", record.elapsed_s)
    _want(all(_is_count(size, 0) for size in record.memory_bytes), "memory_bytes", record.memory_bytes)
    _want(all(isinstance(each, str) for each in record.saving), "saving", record.saving)
    _want(_is_mapping(record.versions, str), "versions", record.versions)
    _want(_is_mapping(record.mesh, int), "mesh", record.mesh)
    _want(isinstance(record.output, dict), "output", record.output)
    _want(isinstance(record.reused_from, str | None), "reused_from", record.reused_from)
    _want(record.error is None or isinstance(record.error, dict), "error", record.error)
    if record.error is not None:
        for name in TOLD & record.error.keys():
            _want(isinstance(record.error[name], str), f"error.{name}", record.error[name])


def _stats(data: Any) -> SamplerStats:
    if not isinstance(data, dict):
        raise TypeError(f"sampler: {data!r:.60}")
    known = {name: value for name, value in data.items() if name in STATS}
    found = SamplerStats(**{**known, "fronts": tuple(known.get("fronts", ()))})
    for name in ("num_steps", "rounds"):
        _want(_is_count(getattr(found, name)), f"sampler.{name}", getattr(found, name))
    for name in ("nfe", "skipped"):
        _want(_is_count(getattr(found, name), 0), f"sampler.{name}", getattr(found, name))
    _want(all(_is_count(front, 0) for front in found.fronts), "sampler.fronts", found.fronts)
    _want(isinstance(found.converged_by, str), "sampler.converged_by", found.converged_by)
    _want(_is_number(found.blocks) and found.blocks >= 0, "sampler.blocks", found.blocks)
    return found


def _note(data: Any) -> Note:
    if not (isinstance(data, dict) and all(isinstance(data.get(name), str) for name in ("kind", "message"))):
        raise TypeError(f"notes: {data!r:.60}")
    return Note(data["kind"], data["message"])


def _want(is_right: bool, name: str, value: object) -> None:
    if not is_right:
        raise ValueError(f"{name} is {value!r:.60}")


def _is_count(value: object, least: int = 1) -> bool:
    return type(value) is int and least <= value < 1 << 63


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # pyright: ignore[reportArgumentType]


def _is_mapping(value: object, kind: type) -> bool:
    return isinstance(value, Mapping) and all(type(each) is kind for each in value.values())


def _again(record: Record, message: str, kind: str) -> Record:
    error = {"kind": kind, "message": message, "remedy": AGAIN, "rank": 0, "log": ""}
    return dataclasses.replace(record, status="failed", error=error)


def record_names(run: Path) -> Iterator[str]:
    """List the files of a run's records, as far as its folders can be listed."""
    return _record_files(run, Survey())


def _record_files(run: Path, found: Survey) -> Iterator[str]:
    """The files of records; folders that cannot be listed are noted in `found`."""
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
