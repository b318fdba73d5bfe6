"""One item, from its plan to its latents; what comes then is its ending."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from genrun.adapters.parallel.alarm import BrokenSlotError
from genrun.runner.notes import OF_SAMPLING
from genrun.runner.store.records import Note, Record, SamplerStats
from genrun.runner.store.scores import metrics_of
from genrun.runner.worker.cached import cache_notes
from genrun.runner.worker.finish import Ending, failure_of, sha256_of

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.parallel.team import Team
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.worker.memory import Usage

BYSTANDER = "ExchangeError"
"""Kind of failure of the ranks that only learned that another one failed."""

T = TypeVar("T")

LATENT_METRICS = frozenset({"latent_rmse", "latent_worst_block"})


class Sample(Protocol):
    """A sampled item that is not decoded yet."""

    @property
    def stats(self) -> SamplerStats:
        """What sampling cost."""
        ...

    @property
    def is_apart(self) -> bool:
        """Whether it may be decoded in another thread while the next item is sampled."""
        ...

    @property
    def notes(self) -> tuple[Note, ...]:
        """What has to be told about the item, as far as sampling shows it."""
        ...

    def decode(self) -> Any:
        """Return the frames. Called on the leading rank only."""
        ...

    def decode_saving_memory(self) -> tuple[Any, tuple[str, ...]]:
        """Return the frames, decoded in the least memory, and what that took: tiling, slicing."""
        ...

    def save_latents(self, path: Path) -> None:
        """Write the final latents as safetensors."""
        ...


class Producer(Protocol):
    """What turns items into pictures; kept for the life of a worker, so that it can keep its model."""

    @property
    def device(self) -> str:
        """Name of the device, for records."""
        ...

    @property
    def memory(self) -> Usage:
        """Memory of this rank."""
        ...

    def begin(self, folder: RunFolder, items: Sequence[WorkItem]) -> None:
        """Get to know the run and its items, before the first of them."""
        ...

    def is_ready(self, item: WorkItem) -> bool:
        """Whether there is nothing to load for the item."""
        ...

    def prepare(self, item: WorkItem) -> None:
        """Load what the item needs, so that its time does not count as the item's."""
        ...

    def suffix(self, item: WorkItem, frames: Any) -> str:
        """The suffix of the item's media file, with its dot."""
        ...

    def notes(self, item: WorkItem, frames: Any) -> tuple[Note, ...]:
        """What has to be told about the item, as far as its frames show it."""
        ...

    def sample(self, item: WorkItem, on_round: Callable[[int, int], None]) -> Sample:
        """Sample an item. `on_round` is told the front and the number of steps."""
        ...

    def restore(self, item: WorkItem, latents: Path, stats: SamplerStats) -> Sample:
        """Return an item as it was sampled, from its saved latents. Called on the leading rank only."""
        ...

    def write(self, path: Path, frames: Any, metadata: dict[str, Any]) -> None:
        """Write frames as a media file with its metadata embedded."""
        ...


@dataclass(frozen=True)
class Maker:
    """Samples items on one rank.

    Attributes:
        folder: the run.
        producer: what samples and writes.
        team: the ranks that make an item together.
        job: launcher's job id and restart count, for records.
        log: this rank's log, relative to the run folder.
        save_latents: whether final latents are kept.
        versions: for records.
        output: what media files are written with, for records.
        decoded: ids of the items that are made from their saved latents where these are whole.
    """

    folder: RunFolder
    producer: Producer
    team: Team
    job: str
    log: str
    save_latents: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    output: Mapping[str, Any] = field(default_factory=dict)
    decoded: frozenset[str] = frozenset()

    def sample(
        self,
        item: WorkItem,
        attempt: int,
        on_round: Callable[[int, int], None],
        before_loading: Callable[[], None] = lambda: None,
    ) -> Ending | None:
        """Sample an item.

        Args:
            item: the item.
            attempt: 1 for the first try.
            on_round: told the front and the number of steps.
            before_loading: called before another model is loaded.

        Returns:
            What is left to do; None on ranks that do not lead.

        Raises:
            StoreError: the run folder cannot be written; no item is to blame.
            BrokenSlotError: sampling failed here alone, and other ranks wait for this one: this process has to end.
        """
        if not self.producer.is_ready(item):
            before_loading()
        failures = self._agree(self._try(item, lambda: self.producer.prepare(item))[1])
        if not failures and item.id in self.decoded:
            saved = self._saved(item, attempt) if self.team.leads else None
            if any(self.team.gather(saved is not None)):
                return saved
        started = time.monotonic()
        sample = None
        if not failures:
            try:
                sample, failure = self._try(item, lambda: self.producer.sample(item, on_round))
            except BrokenSlotError as broken:
                self._give_up(item, attempt, broken)
                raise
            failures = self._agree(failure)
        held = [size for size in self.team.gather(self.producer.memory.recorded_bytes) if isinstance(size, int)]
        if not self.team.leads:
            return None
        record = Record(
            item.id,
            "failed",
            attempt,
            elapsed_s=time.monotonic() - started,
            error=failures[0] if failures else None,
            memory_bytes=tuple(held),
            job=self.job,
            versions=dict(self.versions),
            mesh={axis: size for axis, size in self.team.mesh.to_dict().items() if axis != "data"},
            output=dict(self.output),
        )
        sample = None if failures else sample
        if sample is not None:
            notes = (*sample.notes, *cache_notes(item, sample.stats))
            record = replace(record, sampler=sample.stats, notes=notes)
        rest = (self.save_latents, self.team.rank, self.log)
        return Ending(self.folder, self.producer, item, record, sample, *rest)

    def _saved(self, item: WorkItem, attempt: int) -> Ending | None:
        """What is left to do for an item whose latents are saved; None where they are not what was saved."""
        record = self.folder.record(item.id)
        # Of any kind of failure: the attempt before this one may have failed at decoding.
        if record is None or record.status == "done" or record.latents is None or record.sampler is None:
            return None
        latents = self.folder.latents_path(item.id)
        try:
            if sha256_of(latents) != record.latents_sha256:
                return None
            sample = self.producer.restore(item, latents, record.sampler)
        except (OSError, ValueError):
            return None
        held = record.memory_bytes or (self.producer.memory.recorded_bytes,)
        notes = tuple(note for note in record.notes if note.kind in OF_SAMPLING)
        record = replace(record, attempt=attempt, error=None, memory_bytes=held, notes=notes)
        record = replace(record, job=self.job, output=dict(self.output))
        rest = (self.save_latents, self.team.rank, self.log)
        return Ending(self.folder, self.producer, item, record, sample, *rest, is_timed=False)

    def _give_up(self, item: WorkItem, attempt: int, broken: BrokenSlotError) -> None:
        """Record a failure from the rank where it happened, since the one that leads may never come back."""
        cause = broken.__cause__ if isinstance(broken.__cause__, Exception) else broken
        record = Record(item.id, "failed", attempt, error=self._failure(cause, item), versions=dict(self.versions))
        finished_at = datetime.now(UTC).isoformat(timespec="seconds")
        record = replace(record, host=platform.node(), job=self.job, finished_at=finished_at)
        self.folder.publish(record, {})

    def _agree(self, failure: dict[str, Any] | None) -> list[dict[str, Any]]:
        """Return what failed on any rank of the team, ranks that only heard of it last."""
        failures = [error for error in self.team.gather(failure) if error is not None]
        return sorted(failures, key=lambda error: error["kind"] == BYSTANDER)

    def _try(self, item: WorkItem, work: Callable[[], T]) -> tuple[T | None, dict[str, Any] | None]:
        try:
            return work(), None
        except BrokenSlotError:
            raise
        except Exception as error:
            return None, self._failure(error, item)

    def _failure(self, error: Exception, item: WorkItem) -> dict[str, Any]:
        return failure_of(error, item, rank=self.team.rank, log=self.log)


def wants_latents(document: dict[str, Any]) -> bool:
    """Whether a resolved job keeps latents: when told to, or when a metric or a gate on drift needs them."""
    output = document.get("output") or {}
    gated = (name.removeprefix("drift.") for name in document.get("gates") or ())
    needed = {*metrics_of(document), *gated}
    return bool(output.get("save_latents")) or not LATENT_METRICS.isdisjoint(needed)
