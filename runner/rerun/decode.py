"""Decoding of saved latents, without sampling: `genrun decode`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.errors import StoreError
from genrun.runner.store.files import sha256_of
from genrun.runner.store.lease import Leases, Owner
from genrun.runner.store.output_settings import written_with
from genrun.runner.store.processes import current
from genrun.runner.worker.failures import DecodeError, describe
from genrun.runner.worker.finish import metadata_of
from genrun.runner.worker.producer import read_others

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.records import Record
    from genrun.runner.worker.engine import Engine


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
            latents = folder.path / str(record.latents)
            frames = engine.decode(item, read_saved_latents(latents, record.latents_sha256), read_others(latents))
        except StoreError:
            raise
        except Exception as error:
            why = describe(DecodeError.of(error), rank=0, log="")
            failed = replace(record, error=why, finished_at=_now())
            return failed if folder.write_record(failed) else None
        media = folder.media_path(item, engine.suffix(item, frames))
        with folder.staged(media) as temporary:
            engine.write(temporary, frames, metadata_of(item))
            done = replace(
                record,
                status="done",
                media=folder.relative(media),
                sha256=sha256_of(temporary),
                media_bytes=temporary.stat().st_size,
                sound=engine.sound(frames),
                error=None,
                notes=(*record.notes, *engine.notes(item, frames)),
                finished_at=_now(),
                output=written_with(folder.job_document()),
            )
            return done if folder.publish(done, {temporary: media}) else None


def read_saved_latents(path: Path, sha256: str | None = None) -> Any:
    """Read final latents, and check them against the SHA-256 of their record where one is given.

    Raises:
        StoreError: they cannot be read, or are not the file that was written.
    """
    from genrun.runner.worker.producer import read_latents

    try:
        if sha256 is not None and sha256_of(path) != sha256:
            raise ValueError("not the file that was written: its SHA-256 differs from its record's")
        return read_latents(path)
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: {error}.", remedy="Sample the item again: genrun retry.") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
