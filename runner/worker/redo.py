"""Making results again: decoding saved latents, and repeating an item to see whether it comes out the same."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.errors import RunError, StoreError, UsageError
from genrun.runner.job.plan import WorkItem
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import Leases, Owner
from genrun.runner.store.processes import current
from genrun.runner.store.records import Record
from genrun.runner.store.results import file_of
from genrun.runner.worker.embedded import told_by
from genrun.runner.worker.failures import DecodeError, describe
from genrun.runner.worker.finish import metadata_of, sha256_of, size_of
from genrun.runner.worker.written import written_with

if TYPE_CHECKING:
    from genrun.runner.worker.engine import Engine


@dataclass(frozen=True)
class Original:
    """What a repetition is compared with.

    Attributes:
        item: the item.
        media: its media file, or None.
        sha256: of the media file when it was written, or None.
        latents: its latents file, or None.
        document: the sections output and launch that its bytes depend on.
        saving: what the VAE did to save memory.
    """

    item: WorkItem
    media: Path | None
    sha256: str | None
    latents: Path | None
    document: Mapping[str, Any]
    saving: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """How a repetition compares with its original.

    Attributes:
        media: the new media file.
        sha256: of the new file.
        expected: SHA-256 of the original, or None.
        frames_max: largest difference of a pixel value, 0..255; None where there is nothing to compare.
        latents_rms: root mean square difference of the latents; None where there are none to compare.
    """

    media: Path
    sha256: str
    expected: str | None
    frames_max: int | None
    latents_rms: float | None

    @property
    def is_identical(self) -> bool:
        """Whether the bytes of the file are the same."""
        return self.sha256 == self.expected


REMEDIED = frozenset({"out_of_memory", "non_finite", "not_as_asked", "load"})
"""Kinds of failure whose remedies hold for one item by itself, too."""


def undecoded(folder: RunFolder) -> list[tuple[WorkItem, Record]]:
    """Return the items whose latents are saved but could not be decoded."""
    records = folder.records(check_files=True)
    found = ((item, records[item.id]) for item in folder.items() if item.id in records)
    return [pair for pair in found if pair[1].status == "failed" and pair[1].latents is not None]


def decode(folder: RunFolder, engine: Engine, item: WorkItem, record: Record) -> Record | None:
    """Decode an item's saved latents and publish its new record, done or failed again.

    Returns:
        The record, or None when a worker holds the item or has finished it.

    Raises:
        StoreError: the latents cannot be read, or the run cannot be written.
    """
    leases = Leases(folder, Owner(current(), "decode"))
    lease = leases.claim(item.id)
    if lease is None:
        return None
    with lease:
        try:
            engine.begin(folder, [item])
            frames = engine.decode(item, _latents_of(folder.path / str(record.latents), record.latents_sha256))
        except StoreError:
            raise
        except Exception as error:
            failed = DecodeError.of(error)
            return _failed_again(folder, record, failed)
        media = folder.media_path(item, engine.suffix(item, frames))
        with folder.staged(media) as temporary:
            engine.write(temporary, frames, metadata_of(item))
            done = replace(
                record,
                status="done",
                media=folder.relative(media),
                sha256=sha256_of(temporary),
                media_bytes=size_of(temporary),
                error=None,
                notes=(*record.notes, *engine.notes(item, frames)),
                finished_at=_now(),
                output=written_with(folder.job_document()),
            )
            return done if folder.publish(done, {temporary: media}) else None


def _failed_again(folder: RunFolder, record: Record, error: DecodeError) -> Record | None:
    again = replace(record, error=describe(error, rank=0, log=""), finished_at=_now())
    return again if folder.write_record(again) else None


def original_of(path: Path) -> Original:
    """Read from a media file what made it; its record is used too when the file lies in a run.

    Raises:
        UsageError: the file does not say, or nothing that can have made it.
        OSError: the file cannot be read.
    """
    from genrun.adapters.media import MediaError, read_metadata

    remedy = "Name a file that genrun wrote, or an item's id."
    try:
        metadata = read_metadata(path)
    except MediaError as error:
        raise UsageError(f"{path}: does not say how it was made: {error}.", remedy=remedy) from error
    told = told_by(metadata, path)
    item, made = told.item, told.made
    document = {"launch": {"threads": made.get("threads")}, "output": {**_encoding(made), "format": path.suffix[1:]}}
    run = path.resolve().parents[2] if len(path.resolve().parents) > 2 else path.parent
    record = RunFolder(run).record(item.id) if (run / "plan.jsonl").is_file() else None
    if record is None:
        return Original(item, path, sha256_of(path), None, document, told.saving)
    return Original(item, path, record.sha256, _existing(run, record, "latents"), document, told.saving)


def original_in(folder: RunFolder, item: WorkItem) -> Original:
    """Find in a run what an item's repetition is compared with."""
    record = folder.record(item.id)
    if record is None:
        return Original(item, None, None, None, folder.job_document())
    media, latents = _existing(folder.path, record, "media"), _existing(folder.path, record, "latents")
    return Original(item, media, record.sha256, latents, folder.job_document(), record.saving)


def repeat(original: Original, out: Path) -> Comparison:
    """Sample an item again in this process, write it into the folder `out`, and compare.

    Raises:
        RunError: it cannot be made, or its pictures must not count.
        UsageError: the original lies in that folder.
        StoreError: the folder cannot be written.
    """
    from genrun.runner.worker.engine import Engine

    item = original.item
    for old in (original.media, original.latents):
        if old is not None and old.resolve().parent == out.resolve():
            raise UsageError(f"{out}: {old.name} lies there, and would be written over.", remedy="Name another: --out.")
    engine = Engine({**original.document, "model": item.model})
    scratch = RunFolder(out.resolve())
    try:
        sample = engine.sample(item, lambda front, steps: None)
        frames = sample.decode_saving_memory()[0] if original.saving else sample.decode()
    except Exception as error:
        why = describe(error, rank=0, log="")
        raise RunError(f"{item.id}: {why['kind']}: {why['message']}", remedy=_remedy(why)) from error
    media = scratch.path / f"{item.id}{engine.suffix(item, frames)}"
    latents = scratch.path / f"{item.id}.safetensors"
    _write(scratch, media, lambda path: engine.write(path, frames, metadata_of(item, original.saving)))
    _write(scratch, latents, sample.save_latents)
    return Comparison(
        media,
        sha256_of(media),
        original.sha256,
        None if original.media is None else _frames_max(media, original.media),
        None if original.latents is None else _rms(latents, original.latents),
    )


def _remedy(why: Mapping[str, Any]) -> str:
    """What helps an item that is made again; there is no log, and nothing is kept."""
    return str(why["remedy"]) if why["kind"] in REMEDIED else ""


def _write(folder: RunFolder, final: Path, write: Any) -> None:
    with folder.staged(final) as temporary:
        write(temporary)
        temporary.replace(final)


def _frames_max(new: Path, old: Path) -> int | None:
    from genrun.adapters.media import read_frames

    ours, theirs = read_frames(new), read_frames(old)
    if ours.shape != theirs.shape:
        return None
    return int(abs(ours.astype(int) - theirs.astype(int)).max())


def _rms(new: Path, old: Path) -> float | None:
    ours, theirs = _latents_of(new).double(), _latents_of(old).double()
    if ours.shape != theirs.shape:
        return None
    return math.sqrt(float(((ours - theirs) ** 2).mean()))


def _latents_of(path: Path, sha256: str | None = None) -> Any:
    from genrun.runner.worker.samples import read_latents

    try:
        if sha256 is not None and sha256_of(path) != sha256:
            raise ValueError("not the file that was written: its SHA-256 differs from its record's")
        return read_latents(path)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: {error}.", remedy="Sample the item again: genrun retry.") from error


def _encoding(made: Mapping[str, Any]) -> dict[str, Any]:
    return {key: made[key] for key in ("fps", "crf") if key in made}


def _existing(run: Path, record: Record, room: str) -> Path | None:
    path = file_of(run, record, room)
    return path if path is not None and path.is_file() else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
