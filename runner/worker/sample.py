"""Sampling of an item: from its plan, or from saved latents, to an unfinished item."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from genrun.adapters.parallel.slot import BrokenSlotError
from genrun.runner.notes import CACHE_SAVED_NOTHING, OF_SAMPLING
from genrun.runner.store.files import sha256_of
from genrun.runner.store.records import Note, Record, SamplerStats
from genrun.runner.worker.failures import log_failure
from genrun.runner.worker.finish import UnfinishedItem

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.parallel.team import Team
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.worker.producer import Producer

BYSTANDER = "ExchangeError"
"""Kind of failure of the ranks that only learned that another one failed."""

LEAST_SAVED = 1e-4
"""Share of the blocks below which a cache counts as having saved nothing: counts of blocks are rounded."""

T = TypeVar("T")


@dataclass(frozen=True)
class ItemSampler:
    """Samples the items of a run with the ranks of one team.

    Attributes:
        folder: the run.
        producer: samples and writes.
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
    ) -> UnfinishedItem | None:
        """Sample an item.

        Args:
            item: the item.
            attempt: 1 for the first try.
            on_round: told the front and the number of steps.
            before_loading: called before another model is loaded.

        Returns:
            The item, sampled or failed, to be finished; None on ranks that do not lead.

        Raises:
            StoreError: the run folder cannot be written; no item is to blame.
            BrokenSlotError: sampling failed here alone, and other ranks wait for this one: this process has to end.
        """
        if not self.producer.is_ready(item):
            before_loading()
        failures = self._agree(self._try(item, lambda: self.producer.prepare(item))[1])
        if not failures and item.id in self.decoded:
            saved = self._restore(item, attempt) if self.team.leads else None
            if any(self.team.gather(saved is not None)):
                return saved
        started = time.monotonic()
        sample = None
        if not failures:
            try:
                sample, failure = self._try(item, lambda: self.producer.sample(item, on_round))
            except BrokenSlotError as broken:
                self._record_broken_slot(item, attempt, broken)
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
            promise=item.promise,
        )
        sample = None if failures else sample
        if sample is not None:
            notes = (*sample.notes, *cache_notes(item, sample.stats))
            record = replace(record, sampler=sample.stats, notes=notes)
        return UnfinishedItem(
            self.folder,
            self.producer,
            item,
            record,
            sample,
            self.save_latents or item.audit,
            self.team.rank,
            self.log,
        )

    def _restore(self, item: WorkItem, attempt: int) -> UnfinishedItem | None:
        """Return an item whose latents are saved, to be finished; None where they are not what was saved."""
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
        record = replace(
            record,
            attempt=attempt,
            error=None,
            memory_bytes=record.memory_bytes or (self.producer.memory.recorded_bytes,),
            # Those of its pictures are found again when they are decoded.
            notes=tuple(note for note in record.notes if note.kind in OF_SAMPLING),
            job=self.job,
            output=dict(self.output),
        )
        return UnfinishedItem(
            self.folder,
            self.producer,
            item,
            record,
            sample,
            self.save_latents or item.audit,
            self.team.rank,
            self.log,
            is_timed=False,
        )

    def _record_broken_slot(self, item: WorkItem, attempt: int, broken: BrokenSlotError) -> None:
        # Written by the rank where it happened, since the one that leads may never come back.
        cause = broken.__cause__ if isinstance(broken.__cause__, Exception) else broken
        record = Record(
            item.id,
            "failed",
            attempt,
            error=log_failure(cause, item.id, rank=self.team.rank, log=self.log),
            host=platform.node(),
            job=self.job,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=dict(self.versions),
        )
        self.folder.publish(record, {})

    def _agree(self, failure: dict[str, Any] | None) -> list[dict[str, Any]]:
        """Return the failures of all ranks of the team; those that only followed from another rank's come last."""
        failures = [error for error in self.team.gather(failure) if error is not None]
        return sorted(failures, key=lambda error: error["kind"] == BYSTANDER)

    def _try(self, item: WorkItem, work: Callable[[], T]) -> tuple[T | None, dict[str, Any] | None]:
        try:
            return work(), None
        except BrokenSlotError:
            raise
        except Exception as error:
            return None, log_failure(error, item.id, rank=self.team.rank, log=self.log)


def cache_notes(item: WorkItem, stats: SamplerStats) -> tuple[Note, ...]:
    """Return a note on an item whose cache skipped no block, with the cache, the solver and the likely cause."""
    if not item.cache or not stats.blocks_full or stats.blocks < stats.blocks_full * (1 - LEAST_SAVED):
        return ()
    kind, solver = item.cache["kind"], item.solver["kind"]
    blocks = f"{stats.blocks_full:,.0f} blocks"
    message = f"cache {kind} left out none of {blocks} on solver {solver}: {_cause(item, item.cache)}"
    return (Note(CACHE_SAVED_NOTHING, message),)


def _cause(item: WorkItem, options: Mapping[str, Any]) -> str:
    """Return the likely cause, by what the cache decides by."""
    if int(item.solver.get("workers") or 1) > 1:
        seen = (
            "a parallel solver evaluates most steps once or twice, and only what a step's last round computed is used"
        )
        if "drift" in options:
            return f"{seen}, where its latents moved by no more than drift {options['drift']:g}"
        if "threshold" in options:
            return f"{seen}, where it changed by no more than threshold {options['threshold']:g}"
        return seen
    if "threshold" in options:
        return f"from step to step everything changed by more than threshold {options['threshold']:g}"
    set_options = ", ".join(
        f"{name} {value}" for name, value in options.items() if name != "kind" and value is not None
    )
    return f"none of {item.sampling.get('steps') or 'its'} steps lay where its options ({set_options}) let it"
