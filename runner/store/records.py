"""What a run writes about its items: records of generation and scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["done", "failed"]

CANCELLED = "cancelled"
"""Kind of failure of an item that somebody took out of the work."""


@dataclass(frozen=True)
class SamplerStats:
    """What sampling an item cost.

    Attributes:
        num_steps: N, the sequential steps of the scheduler.
        rounds: parallel model calls.
        nfe: model evaluations.
        fronts: final states after each round.
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
    """Something that whoever uses a done item has to be told.

    Attributes:
        kind: of `runner.notes`, which knows what to do about it.
        message: what is so of this item.
    """

    kind: str
    message: str


@dataclass(frozen=True)
class Record:
    """One item's outcome. Paths are relative to the run folder.

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

    @property
    def is_cancelled(self) -> bool:
        """True when somebody took the item out of the work."""
        return self.error is not None and self.error.get("kind") == CANCELLED


SET = "set:"
"""How the id of a set of items begins."""


@dataclass(frozen=True)
class Score:
    """One metric of one item, or of a set of items (`set_id`).

    `value` is None when it could not be measured, and `reason` says why.
    """

    item_id: str
    metric: str
    value: float | None
    higher_is_better: bool
    reason: str | None = None
    version: int = 1


def set_id(axes: Mapping[str, str]) -> str:
    """The id under which the scores of a cell of the matrix are kept: `set:` and the labels of its axes."""
    return SET + ", ".join(axes.values())
