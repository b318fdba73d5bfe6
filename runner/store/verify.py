"""Verification of a run: every planned item has its record, every record its files, every file its record, each is whole."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.adapters.tensor_files import check
from genrun.registry import Registry
from genrun.runner.errors import DamagedFileError, StoreError, UnreadableError
from genrun.runner.store.files import MENDS, is_temporary, read_error, reading, sha256_of
from genrun.runner.store.folder import FOLDERS, HASHED, RunFolder
from genrun.runner.store.lease import Holding, holdings, is_ahead, looks_alive
from genrun.runner.store.planfile import FILE, is_kept, kept_files, misfits, name_of
from genrun.runner.store.results import is_inside, lost_file, uncollected
from genrun.runner.store.scores import score_files

if TYPE_CHECKING:
    from genrun.runner.store.records import Record

CHECKS = Registry(
    what="file of a run",
    group="genrun.run_files",
    package="genrun",
    own={
        "night.json": "runner.store.nights:check_file",
        "order.json": "runner.store.order:check_file",
        "slurm.json": "slurm.submissions:check_file",
        "scores": "runner.store.scores:check_file",
    },
)
"""Checks of files that other packages keep in a run, each `check(folder, path)`, which raises StoreError.

"night.json" lies in the run, "scores" are its score files, and every other name is that of a file in the folder of a launch.
"""

READERS = 4
"""Threads that hash files: a file is read while another is hashed, and few processors hash faster than disks read."""

AT_ONCE = 64
"""Records that a thread takes at a time: handing out single ones takes as long as hashing a small picture."""


@dataclass(frozen=True)
class Flaw:
    """Finding of `verify`: something that is wrong with a run.

    Attributes:
        kind: missing, failed, unreadable (a record that is none), unplanned, lost, changed, orphan, temporary, lease, plan
            (a line of plan.jsonl), damaged (another file), or denied (a file or folder that may not be looked into).
        path: the file, relative to the run folder, or the item's id.
        message: what is wrong.
    """

    kind: str
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def verify(folder: RunFolder) -> list[Flaw]:
    """Return everything that is wrong with a run, reading every file; empty for a run that is whole."""
    with uncollected(), ThreadPoolExecutor(READERS) as pool:
        records, unread = _read_records(folder)
        # Hashing and waiting for disks let other threads run: all else is read meanwhile.
        files = _files(folder, list(records.values()), pool)
        flaws = [*_folders(folder), *_small_files(folder)]
        planned, wrong = _read_plan(folder)
        flaws += wrong + unread + list(_inputs(folder))
        flaws += _unfinished(folder, planned, records, {flaw.path for flaw in unread})
        if not wrong:
            strangers = (item_id for item_id in records if item_id not in planned)
            flaws += [Flaw("unplanned", item_id, "has a record, but is not in plan.jsonl") for item_id in strangers]
        flaws += files
        flaws += _orphans(folder, records, {flaw.path for flaw in unread if flaw.kind == "denied"})
        flaws += [
            Flaw("temporary", folder.relative(path), "left behind by a killed worker; the next submit removes it")
            for path in folder.temporary_files()
        ]
        return flaws + _leases(folder)


def damaged_extras(folder: RunFolder) -> Iterator[tuple[Path, StoreError]]:
    """Yield the optional files of a run that are damaged or may not be read: night, launches, scores."""
    of_launches = [name for name in CHECKS.names() if name not in ("night.json", "scores")]
    for name, paths in (
        ("night.json", [folder.night_path]),
        *((name, sorted(folder.logs.glob(f"*/{name}"))) for name in of_launches),
        ("scores", score_files(folder)),
    ):
        for path in paths:
            try:
                path.lstat()
            except FileNotFoundError:
                continue
            except OSError:
                # The check tells why.
                pass
            try:
                CHECKS.get(name)(folder, path)
            except StoreError as error:
                yield path, error


def damaged_encodings(folder: RunFolder, most_bytes: int | None = None) -> Iterator[tuple[Path, StoreError]]:
    """Yield the encodings of prompts that are damaged or may not be read.

    Args:
        folder: the run.
        most_bytes: of more than that in all, only headers and lengths are looked at.
    """
    paths = [path for path in sorted(folder.path.glob("prompts/*/*")) if not path.name.startswith(".")]
    is_whole = most_bytes is None or sum(path.stat().st_size for path in paths if path.is_file()) <= most_bytes
    for path in paths:
        try:
            with reading(path):
                check(path, whole=is_whole)
        except StoreError as error:
            yield path, error


def _folders(folder: RunFolder) -> Iterator[Flaw]:
    """Tell of folders that are none, and of those that may not be listed."""
    for name in FOLDERS:
        room = folder.path / name
        if os.path.lexists(room) and not room.is_dir():
            yield Flaw("damaged", name, "is no folder; the next submit moves it out of the way")
    # Records tell of their own room; of the others, what cannot be listed cannot be called whole either.
    for name in FOLDERS[1:]:
        for room in (folder.path / name, *_parts(folder.path / name)):
            try:
                with os.scandir(room):
                    pass
            except OSError as error:
                told = read_error(room, error)
                if isinstance(told, UnreadableError):
                    yield _denied(folder, room, told)


def _parts(room: Path) -> list[Path]:
    try:
        return sorted(path for path in room.iterdir() if path.is_dir())
    except OSError:
        return []


def _small_files(folder: RunFolder) -> Iterator[Flaw]:
    """Report damaged files other than plan and records."""
    for path, error in (*_damaged_documents(folder), *damaged_extras(folder), *damaged_encodings(folder)):
        if isinstance(error, UnreadableError):
            yield _denied(folder, path, error)
        else:
            yield Flaw("damaged", folder.relative(path), _without_path(error, path))


def _damaged_documents(folder: RunFolder) -> Iterator[tuple[Path, StoreError]]:
    for name, read in (("job.yaml", folder.job_document), ("env.json", folder.environment)):
        path = folder.path / name
        try:
            read()
            if name in HASHED and not folder.is_as_written(name):
                why = "is not the file that was written: its SHA-256 differs from that in env.json"
                yield path, DamagedFileError(f"{path}: {why}.", remedy=MENDS)
        except StoreError as error:
            yield path, error


def _read_plan(folder: RunFolder) -> tuple[set[str], list[Flaw]]:
    path = folder.path / FILE
    try:
        plan = folder.plan()
    except UnreadableError as error:
        return set(), [_denied(folder, path, error)]
    except DamagedFileError as error:
        return set(), [Flaw("plan", FILE, _without_path(error, path))]
    items = {item.id for item in plan.items}
    wrong = {**plan.wrong, **misfits(plan, is_ours=folder.is_of_this_version())}
    if not wrong and not folder.is_as_written(FILE):
        why = "is not the file that was written: its SHA-256 differs from that in env.json"
        return items, [Flaw("plan", FILE, f"{why}; the next submit writes it again")]
    flaws = [
        Flaw("plan", f"{FILE}:{number}", f"{why}; the next submit writes it again") for number, why in wrong.items()
    ]
    return items, sorted(flaws, key=lambda flaw: int(flaw.path.rpartition(":")[2]))


def _read_records(folder: RunFolder) -> tuple[dict[str, Record], list[Flaw]]:
    found = folder.survey()
    flaws = [_denied(folder, path, error) for path, error in found.unreadable.items()]
    for path, error in found.damaged.items():
        why = f"{_without_path(error, path)}; the next submit makes its item again"
        flaws.append(Flaw("unreadable", folder.relative(path), why))
    damaged = {path.stem for path in found.damaged if path == folder.record_path(path.stem)}
    records = {item_id: record for item_id, record in found.records.items() if item_id not in damaged}
    return records, sorted(flaws, key=lambda flaw: flaw.path)


def _unfinished(folder: RunFolder, planned: set[str], records: dict[str, Record], unread: set[str]) -> Iterator[Flaw]:
    for item_id in sorted(planned):
        record = records.get(item_id)
        if record is None and not _is_unread(folder, item_id, unread):
            yield Flaw("missing", item_id, "has no record: it was never finished; genrun retry makes it")
        elif record is not None and record.status == "failed":
            why = (record.error or {}).get("kind", "no reason given")
            yield Flaw("failed", item_id, f"failed ({why}); genrun retry tries again")


def _is_unread(folder: RunFolder, item_id: str, unread: set[str]) -> bool:
    """Tell whether another flaw tells of an item's record, or of a folder in which it may lie."""
    path = folder.record_path(item_id)
    return not unread.isdisjoint(map(folder.relative, (path, *path.parents[:2])))


def _inputs(folder: RunFolder) -> Iterator[Flaw]:
    """Report pictures and clips that prompts name, and that are lost or not what was kept."""
    try:
        wanted = kept_files(folder.plan().items)
    except StoreError:
        return
    for (sha256, suffix), name in wanted.items():
        path = folder.path / name_of(sha256, suffix)
        again = f"the input {name!r:.80}; submitting its job again keeps another copy"
        if not path.is_file():
            yield Flaw("lost", folder.relative(path), f"is not there: {again}")
        elif not is_kept(path, sha256):
            yield Flaw("changed", folder.relative(path), f"is not the file that was kept: {again}")


def _files(folder: RunFolder, records: Sequence[Record], pool: Executor) -> Iterator[Flaw]:
    """Begin to hash the files of all records, several at a time, and return what will be found."""

    def flaws_of(part: Sequence[Record]) -> list[Flaw]:
        return [flaw for record in part for flaw in _files_of(folder, record)]

    parts = [records[start : start + AT_ONCE] for start in range(0, len(records), AT_ONCE)]
    return itertools.chain.from_iterable(pool.map(flaws_of, parts))


def _files_of(folder: RunFolder, record: Record) -> Iterator[Flaw]:
    if record.status == "done" and record.media is None:
        yield Flaw("lost", record.item_id, "its record names no media file; the next submit makes it again")
    for name, sha256, size in (
        (record.media, record.sha256, record.media_bytes),
        (record.latents, record.latents_sha256, record.latents_bytes),
    ):
        if name is None:
            continue
        if not is_inside(record.item_id, name):
            yield Flaw("lost", record.item_id, f"its record names a file that is not this item's: {name!r:.80}")
            continue
        # As text: a path each takes as long as hashing a small picture.
        path = f"{folder.path}/{name}"
        try:
            why = lost_file(path, size)
            if why == "is not there":
                yield Flaw("lost", name, "is named by a record, but is not there; the next submit makes it again")
            elif why.startswith("is"):
                yield Flaw("lost", name, f"{why}; the next submit makes it again")
            elif why or sha256_of(path) != sha256:
                message = "is not the file that was written: its SHA-256 differs from its record's"
                yield Flaw("changed", name, f"{message}; genrun retry --item {record.item_id} makes it again")
        except UnreadableError as error:
            yield _denied(folder, Path(path), error)
        except OSError as error:
            yield _denied(folder, Path(path), read_error(Path(path), error))


def _orphans(folder: RunFolder, records: dict[str, Record], denied: set[str]) -> Iterator[Flaw]:
    """Report files that no record names, except those whose record may not be read."""
    named = {name for record in records.values() for name in (record.media, record.latents)}
    for room in ("media", "latents"):
        for part in _parts(folder.path / room):
            # Names alone: a path each would take longer than all else that is not hashing.
            try:
                with os.scandir(part) as entries:
                    names = sorted(
                        f"{room}/{part.name}/{entry.name}" for entry in entries if not is_temporary(entry.name)
                    )
            except OSError:
                continue
            yield from (
                Flaw("orphan", name, "no record names this file")
                for name in names
                if name not in named and not _is_unread(folder, name.rpartition("/")[2].partition(".")[0], denied)
            )


def _leases(folder: RunFolder) -> list[Flaw]:
    try:
        return [Flaw("lease", item_id, _held(holding)) for item_id, holding in holdings(folder).items()]
    except StoreError as error:
        return [_denied(folder, folder.leases, error)]


def _held(holding: Holding) -> str:
    now = time.time_ns()
    if holding.owner is None:
        return "has a lease that says nothing, of a worker that was killed; the next submit lets it go"
    ahead = ", with a stamp in the future: clocks differ" if is_ahead(holding, now) else ""
    if not looks_alive(holding, now):
        return f"is still held by a worker that was killed{ahead}; the next submit lets it go"
    process = holding.owner.process
    return f"a worker still holds this item: process {process.pid} on {process.host}, {holding.owner.job}{ahead}"


def _denied(folder: RunFolder, path: Path, error: StoreError) -> Flaw:
    return Flaw("denied", folder.relative(path), f"{_without_path(error, path)}. {error.remedy}")


def _without_path(error: StoreError, path: Path) -> str:
    return error.message.removeprefix(f"{path}: ").rstrip(".")
