"""Records of items and scores, and the JSON of records: written whole, and checked when read."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from genrun.runner.strict_json import read_json

Status = Literal["done", "failed"]

CANCELLED = "cancelled"
"""Kind of failure of an item that somebody took out of the work."""


@dataclass(frozen=True)
class SamplerStats:
    """Cost of sampling an item.

    Attributes:
        num_steps: N, the sequential steps of the scheduler.
        rounds: parallel model calls.
        nfe: model evaluations.
        fronts: the front after each round, lower than before where a gap was rejected.
        converged_by: "tolerance", "sequential" or "first_core", as in `Solution`.
        skipped: states accepted without evaluation (approximate modes only).
        blocks: evaluations of transformer blocks, which a cache leaves some out of; 0 where the model has none.
        blocks_full: how many the same evaluations take without a cache; 0 in records of earlier versions.
    """

    num_steps: int
    rounds: int
    nfe: int
    fronts: tuple[int, ...] = ()
    converged_by: str = "tolerance"
    skipped: int = 0
    blocks: float = 0.0
    blocks_full: float = 0.0

    @property
    def speedup(self) -> float:
        """N / rounds."""
        return self.num_steps / self.rounds


@dataclass(frozen=True)
class Note:
    """Remark that whoever uses a done item has to be told.

    Attributes:
        kind: of `runner.notes`, which knows what to do about it.
        message: what is so of this item.
    """

    kind: str
    message: str


@dataclass(frozen=True)
class Record:
    """Outcome of one item. Paths are relative to the run folder.

    Attributes:
        item_id: the item's content address.
        status: "done" or "failed".
        attempt: 1 for the first try.
        media: the media file, or None.
        sha256: of the media file.
        latents: the saved final latents, or None.
        latents_sha256: of the latents file.
        elapsed_s: wall time of the item in seconds, decoding and writing included.
        sampler: cost of sampling, or None when it failed before.
        error: what failed, for a failed item: {"kind", "message", "remedy", "rank", "log"}.
        device: name of the device.
        memory_bytes: of each rank of the item's team, the most that it held: of the device's memory, or where there is
            no device of the process's own.
        saving: what the VAE had to switch on after it ran out of memory: tiling, slicing.
        host: name of the machine.
        job: launcher's job id and restart count, e.g. "torchrun-1234.0".
        finished_at: UTC, ISO 8601.
        versions: genrun, torch, diffusers, python.
        mesh: how many ranks made it: time, cfg, ring, ulysses. The last three may change the last bits.
        notes: what has to be told about the item although it is done.
        output: of the job's section output what its media file was written with: format, fps, crf. Empty in records
            of 0.1.0.
        reused_from: name of the run in which it was made, when that was an earlier one of the same job.
        media_bytes: size of the media file; None in records of earlier versions.
        latents_bytes: size of the latents file.
        sound: of the media file: samples a second as `rate`, and `channels`; empty where it has none.
        promise: of the item's tolerance, as the plan has it; empty where nothing was asked for.
    """

    item_id: str
    status: Status
    attempt: int = 1
    media: str | None = None
    sha256: str | None = None
    latents: str | None = None
    latents_sha256: str | None = None
    elapsed_s: float = 0.0
    sampler: SamplerStats | None = None
    error: dict[str, Any] | None = None
    device: str = ""
    memory_bytes: tuple[int, ...] = ()
    saving: tuple[str, ...] = ()
    host: str = ""
    job: str = ""
    finished_at: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    mesh: dict[str, int] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    output: dict[str, Any] = field(default_factory=dict)
    reused_from: str | None = None
    media_bytes: int | None = None
    latents_bytes: int | None = None
    sound: dict[str, int] = field(default_factory=dict)
    promise: dict[str, Any] = field(default_factory=dict)

    @property
    def is_cancelled(self) -> bool:
        """True when somebody took the item out of the work."""
        return self.error is not None and self.error.get("kind") == CANCELLED


SET = "set:"
"""Beginning of the id of a set of items."""


@dataclass(frozen=True)
class Score:
    """Value of a metric for one item, or of a set of items (`set_id`).

    `value` is None when it could not be measured, and `reason` says why.
    """

    item_id: str
    metric: str
    value: float | None
    higher_is_better: bool
    reason: str | None = None
    version: int = 1


def set_id(axes: Mapping[str, str]) -> str:
    """Return the id under which the scores of a cell of the matrix are kept: `set:` and the labels of its axes."""
    return SET + ", ".join(axes.values())


_FIELDS = frozenset(each.name for each in dataclasses.fields(Record))
_STATS = frozenset(each.name for each in dataclasses.fields(SamplerStats))


def format_record(record: Record) -> bytes:
    """Return a record as JSON."""
    found = dataclasses.asdict(record)
    if not record.promise:
        del found["promise"]
    return (json.dumps(found, indent=1, allow_nan=False) + "\n").encode()


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
    known = found if found.keys() <= _FIELDS else {name: found[name] for name in found.keys() & _FIELDS}
    for name in ("item_id", "status"):
        if name not in known:
            raise ValueError(f"it lacks {name!r}")
    if item_id is not None and known["item_id"] != item_id:
        raise ValueError(f"holds the record of another item: {known['item_id']!r:.60}")
    if known.get("sampler") is not None:
        known["sampler"] = _parse_stats(known["sampler"])
    for name in ("memory_bytes", "saving"):
        if name in known:
            known[name] = tuple(known[name])
    if "notes" in known:
        known["notes"] = tuple(_parse_note(each) for each in known["notes"])
    record = Record(**known)
    _check(record)
    return record


def _check(record: Record) -> None:
    """Refuse values that no genrun writes, so that whoever uses a record need not look at them again."""
    # One expression each for what nearly always holds: `status` and `verify` do this for every record of a run.
    _want(type(record.item_id) is str, "item_id", record.item_id)
    _want(record.status in ("done", "failed"), "status", record.status)
    _want(_is_count(record.attempt), "attempt", record.attempt)
    if not type(record.host) is type(record.job) is type(record.device) is type(record.finished_at) is str:
        for name in ("host", "job", "device", "finished_at"):
            _want(type(getattr(record, name)) is str, name, getattr(record, name))
    for name, text in (
        ("media", record.media),
        ("sha256", record.sha256),
        ("latents", record.latents),
        ("latents_sha256", record.latents_sha256),
        ("reused_from", record.reused_from),
    ):
        if text is not None and type(text) is not str:
            _want(False, name, text)
    for name, size in (("media_bytes", record.media_bytes), ("latents_bytes", record.latents_bytes)):
        _want(size is None or _is_count(size, 0), name, size)
    _want(_is_number(record.elapsed_s) and record.elapsed_s >= 0, "elapsed_s", record.elapsed_s)
    _want(_are_counts(record.memory_bytes), "memory_bytes", record.memory_bytes)
    _want(_are(record.saving, str), "saving", record.saving)
    _want(type(record.versions) is dict and _are(record.versions.values(), str), "versions", record.versions)
    _want(type(record.mesh) is dict and _are(record.mesh.values(), int), "mesh", record.mesh)
    _want(type(record.output) is dict, "output", record.output)
    _want(type(record.sound) is dict and _are(record.sound.values(), int), "sound", record.sound)
    _want(type(record.promise) is dict, "promise", record.promise)
    if record.error is not None:
        _want(type(record.error) is dict, "error", record.error)
        # Every error has these.
        for name in ("kind", "message", "remedy", "log"):
            if name in record.error:
                _want(type(record.error[name]) is str, f"error.{name}", record.error[name])


def _parse_stats(data: Any) -> SamplerStats:
    if not isinstance(data, dict):
        raise TypeError(f"sampler: {data!r:.60}")
    known = data if data.keys() <= _STATS else {name: data[name] for name in data.keys() & _STATS}
    found = SamplerStats(**{**known, "fronts": tuple(known.get("fronts", ()))})
    _want(_is_count(found.num_steps), "sampler.num_steps", found.num_steps)
    _want(_is_count(found.rounds), "sampler.rounds", found.rounds)
    _want(_is_count(found.nfe, 0), "sampler.nfe", found.nfe)
    _want(_is_count(found.skipped, 0), "sampler.skipped", found.skipped)
    _want(_are_counts(found.fronts), "sampler.fronts", found.fronts)
    _want(type(found.converged_by) is str, "sampler.converged_by", found.converged_by)
    _want(_is_number(found.blocks) and found.blocks >= 0, "sampler.blocks", found.blocks)
    return found


def _parse_note(data: Any) -> Note:
    if not (isinstance(data, dict) and all(isinstance(data.get(name), str) for name in ("kind", "message"))):
        raise TypeError(f"notes: {data!r:.60}")
    return Note(data["kind"], data["message"])


def _want(is_right: bool, name: str, value: object) -> None:
    if not is_right:
        raise ValueError(f"{name} is {value!r:.60}")


def _is_count(value: object, least: int = 1) -> bool:
    return type(value) is int and least <= value < 1 << 63


def _are_counts(values: tuple[Any, ...]) -> bool:
    return not values or (_are(values, int) and min(values) >= 0 and max(values) < 1 << 63)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # pyright: ignore[reportArgumentType]


def _are(values: Iterable[object], kind: type) -> bool:
    return {*map(type, values)} <= {kind}
