"""Make results again in this process: decode saved latents, and repeat an item to compare it with the old one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.adapters.pipeline.additions import CONTENTS
from genrun.runner.errors import RunError, StoreError, UsageError
from genrun.runner.job.errors import JobFileError, Origin
from genrun.runner.job.files import identity, stored_files
from genrun.runner.job.plan import ID_DIGITS, NO_CACHE, WorkItem, plan
from genrun.runner.job.resolve import check
from genrun.runner.job.tree import dress
from genrun.runner.store.environment import current
from genrun.runner.store.files import sha256_of
from genrun.runner.store.folder import RunFolder
from genrun.runner.store.lease import Leases, Owner
from genrun.runner.store.planfile import name_of, written_with
from genrun.runner.store.results import file_of
from genrun.runner.strict_json import read_json
from genrun.runner.worker.failures import DecodeError, describe
from genrun.runner.worker.finish import metadata_of
from genrun.runner.worker.producer import read_others

if TYPE_CHECKING:
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


REMEDIED = frozenset({"out_of_memory", "non_finite", "not_as_asked", "load"})
"""Kinds of failure whose remedies hold for one item by itself, too."""

ONLY_GENUINE = "Only files as genrun wrote them can be made again."
SAVING = ("tiling", "slicing")
MADE = {"fps": (1, 1_000), "crf": (0, 51), "threads": (1, 1_000_000)}
"""Settings that a media file was written with -> the least and the most that each can be."""

_ID = re.compile(rf"[0-9a-f]{{{ID_DIGITS}}}")


class InputsElsewhereError(ValueError):
    """A file that was made from pictures or clips, and is not where they are."""


@dataclass(frozen=True)
class Original:
    """An item as it was made, with which a repetition is compared.

    Attributes:
        item: the item.
        media: its media file, or None.
        sha256: of the media file when it was written, or None.
        latents: its latents file, or None.
        document: the sections output and launch that its bytes depend on.
        saving: what the VAE did to save memory.
        run: that keeps the pictures and clips which it was made from, or None.
    """

    item: WorkItem
    media: Path | None
    sha256: str | None
    latents: Path | None
    document: Mapping[str, Any]
    saving: tuple[str, ...] = ()
    run: RunFolder | None = None


@dataclass(frozen=True)
class Reproduction:
    """A repetition compared with its original.

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
        """True when the bytes of the file are the same."""
        return self.sha256 == self.expected


@dataclass(frozen=True)
class EmbeddedMetadata:
    """A media file's own account of how it was made, checked.

    Attributes:
        item: the item.
        made: fps, crf and threads, as far as the file has them.
        saving: what the VAE did to save memory.
    """

    item: WorkItem
    made: Mapping[str, int]
    saving: tuple[str, ...]


def original_of(path: Path, keeper: RunFolder | None = None) -> Original:
    """Read from a media file how it was made; use its record, too, when the file lies in a run.

    Args:
        path: the file.
        keeper: the run that keeps the pictures and clips which it was made from, where it does not lie in its run.

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
    above = path.resolve().parents
    run = RunFolder(above[2]) if len(above) > 2 and (above[2] / "plan.jsonl").is_file() else None
    embedded = check_metadata(metadata, path, run or keeper)
    item, made = embedded.item, embedded.made
    encoding = {key: made[key] for key in ("fps", "crf", "sound") if key in made}
    document = {"launch": {"threads": made.get("threads")}, "output": {**encoding, "format": path.suffix[1:]}}
    record = None if run is None else run.record(item.id)
    if run is None or record is None:
        return Original(item, path, sha256_of(path), None, document, embedded.saving, run or keeper)
    latents = _existing(run.path, record, "latents")
    return Original(item, path, record.sha256, latents, document, embedded.saving, run)


def original_in(folder: RunFolder, item: WorkItem) -> Original:
    """Find in a run the item as it was made."""
    record = folder.record(item.id)
    if record is None:
        return Original(item, None, None, None, folder.job_document(), run=folder)
    media, latents = _existing(folder.path, record, "media"), _existing(folder.path, record, "latents")
    return Original(item, media, record.sha256, latents, folder.job_document(), record.saving, folder)


def repeat(original: Original, out: Path) -> Reproduction:
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
    if original.run is not None:
        engine.find_inputs(original.run)
    scratch = RunFolder(out.resolve())
    try:
        sample = engine.sample(item, lambda front, steps: None)
        frames = sample.decode_saving_memory()[0] if original.saving else sample.decode()
    except Exception as error:
        why = describe(error, rank=0, log="")
        # Other remedies speak of a log or of kept latents, and here is neither.
        remedy = str(why["remedy"]) if why["kind"] in REMEDIED else ""
        raise RunError(f"{item.id}: {why['kind']}: {why['message']}", remedy=remedy) from error
    media = scratch.path / f"{item.id}{engine.suffix(item, frames)}"
    latents = scratch.path / f"{item.id}.safetensors"
    _write(scratch, media, lambda path: engine.write(path, frames, metadata_of(item, original.saving)))
    _write(scratch, latents, sample.save_latents)
    return Reproduction(
        media,
        sha256_of(media),
        original.sha256,
        None if original.media is None else _frames_max(media, original.media),
        None if original.latents is None else _rms(latents, original.latents),
    )


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
    ours, theirs = read_saved_latents(new).double(), read_saved_latents(old).double()
    if ours.shape != theirs.shape:
        return None
    return math.sqrt(float(((ours - theirs) ** 2).mean()))


def _existing(run: Path, record: Record, kind: str) -> Path | None:
    path = file_of(run, record, kind)
    return path if path is not None and path.is_file() else None


def check_metadata(metadata: Mapping[str, Any], path: Path, run: RunFolder | None = None) -> EmbeddedMetadata:
    """Check a file's account of how it was made as a job is checked.

    The file may come from anywhere, and its words become paths and calls.

    Args:
        metadata: as the file has them.
        path: the file, for messages.
        run: that it lies in, which keeps the pictures and clips that it was made from.

    Raises:
        UsageError: nothing can have been made so here; the message says why.
    """
    if "item" not in metadata:
        raise UsageError(f"{path}: does not say how it was made: no item.", remedy="Name a file that genrun wrote.")
    try:
        item = _item(metadata["item"], path, run)
        made = metadata.get("made")
        return EmbeddedMetadata(item, _made({} if made is None else made), _saving(metadata.get("saving") or ()))
    except InputsElsewhereError as error:
        raise UsageError(f"{path}: {error}.", remedy="Say which run made it: --run RUN.") from error
    except ValueError as error:
        raise UsageError(f"{path}: does not say how it was made: {error}.", remedy=ONLY_GENUINE) from error


def _item(data: Any, path: Path, run: RunFolder | None) -> WorkItem:
    item = WorkItem.from_dict(read_json(json.dumps(data)))
    for name in ("id", "pair"):
        text = getattr(item, name)
        if not isinstance(text, str) or not _ID.fullmatch(text):
            raise ValueError(f"its {name} is {text!r:.60}, and wanted are {ID_DIGITS} hexadecimal digits")
    if not isinstance(item.axes, dict) or not all(isinstance(label, str) for label in item.axes.values()):
        raise ValueError("its axes are no texts")
    again = _planned(item, path, run)
    if identity(again.inputs) != identity(item.inputs):
        raise ValueError("the pictures that the run keeps are not those that it was made from")
    if item.fits() is not True:
        raise ValueError(f"its id {item.id} is not that of what it says")
    if again.model["fingerprint"] != item.model.get("fingerprint"):
        raise ValueError(f"the weights in {again.model['checkpoint']!r:.200} are not those that made it")
    before = item.model.get(CONTENTS) or {}
    changed = [name for name, content in (again.model.get(CONTENTS) or {}).items() if before.get(name) != content]
    if changed:
        raise ValueError(f"{changed[0]!r:.200} is not what it was when it made the item")
    return item


def _planned(item: WorkItem, path: Path, run: RunFolder | None) -> WorkItem:
    """Plan the item as a job of its own, which checks all that it says.

    Raises:
        ValueError: such a job would be refused; the message says why.
    """
    if not isinstance(item.model, dict) or not isinstance(item.sampling, dict):
        raise ValueError("its model and its sampling are no mappings")
    if item.inputs and run is None:
        names = ", ".join(f"{field} {file.get('name', '')!r:.80}" for field, file in stored_files(item.inputs))
        raise InputsElsewhereError(f"it was made from {names}, which its run keeps, and it does not lie in its run")
    inputs: dict[str, list[str]] = {}
    if run is not None:
        for field, files in item.inputs.items():
            inputs[field] = [str(run.path / name_of(file["sha256"], file["suffix"])) for file in files]
    job = {
        "name": "rerun",
        "model": {
            name: value
            for name, value in item.model.items()
            if name not in ("fingerprint", CONTENTS) and value is not None
        },
        "prompts": [{"prompt": item.prompt, **_single(inputs)} if inputs else item.prompt],
        "seeds": [item.seed],
        "sampling": {**item.sampling, "negative_prompt": item.negative_prompt},
        "solver": item.solver,
        "cache": item.cache or {"kind": NO_CACHE},
        "attention": item.attention,
    }
    try:
        return plan(check(dress(job, Origin(str(path))), path, environ={}))[0]
    except JobFileError as error:
        first = error.problems[0]
        named = f"{first.path}: " if first.path else ""
        raise ValueError(f"{named}{first.message.rstrip('.')}") from error


def _single(inputs: Mapping[str, list[str]]) -> dict[str, list[str] | str]:
    """Return fields with one file as a job writes them."""
    return {field: files if len(files) > 1 else files[0] for field, files in inputs.items()}


def _made(data: Any) -> dict[str, int]:
    if not isinstance(data, dict):
        raise ValueError("`made` is no object")
    found = {}
    for name, (least, most) in MADE.items():
        value = data.get(name)
        if value is None:
            continue
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"{name} is {value!r:.60}, and wanted is a whole number from {least} to {most}")
        found[name] = value
    return {**found, "sound": False} if data.get("sound") is False else found


def _saving(data: Any) -> tuple[str, ...]:
    if not isinstance(data, list | tuple) or any(means not in SAVING for means in data):
        raise ValueError(f"`saving` is {data!r:.60}, and wanted is a list of {' and '.join(SAVING)}")
    return tuple(data)
