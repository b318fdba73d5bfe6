"""One item, from its plan to its record: sample, decode, write, publish."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from genrun.adapters.parallel.alarm import BrokenSlotError
from genrun.runner.scoring.choice import metric_name
from genrun.runner.store.records import Record, SamplerStats
from genrun.runner.work.failures import OUT_OF_MEMORY, DecodeError, OutOfVaeMemoryError, describe, kind_of

if TYPE_CHECKING:
    from genrun.runner.plan import WorkItem
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.work.memory import Usage
    from genrun.runner.work.team import Team

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

    def prepare(self, item: WorkItem) -> None:
        """Load what the item needs, so that its time does not count as the item's."""
        ...

    def suffix(self, item: WorkItem, frames: Any) -> str:
        """The suffix of the item's media file, with its dot."""
        ...

    def sample(self, item: WorkItem, on_round: Callable[[int, int], None]) -> Sample:
        """Sample an item. `on_round` is told the front and the number of steps."""
        ...

    def write(self, path: Path, frames: Any, metadata: dict[str, Any]) -> None:
        """Write frames as a media file with its metadata embedded."""
        ...


@dataclass(frozen=True)
class Maker:
    """Makes items on one rank.

    Attributes:
        folder: the run.
        producer: what samples and writes.
        team: the ranks that make an item together.
        job: launcher's job id and restart count, for records.
        log: this rank's log, relative to the run folder.
        save_latents: whether final latents are kept.
        versions: for records.
    """

    folder: RunFolder
    producer: Producer
    team: Team
    job: str
    log: str
    save_latents: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)

    def make(self, item: WorkItem, attempt: int, on_round: Callable[[int, int], None]) -> Record | None:
        """Make an item and publish its record: done, or failed with the reason.

        Returns:
            The record; None on ranks that do not lead, and when another worker was first.

        Raises:
            StoreError: the run folder cannot be written; no item is to blame.
            BrokenSlotError: sampling failed here alone, and other ranks wait for this one: this process has to end.
        """
        failures = self._agree(self._try(lambda: self.producer.prepare(item))[1])
        started = time.monotonic()
        sample = None
        if not failures:
            try:
                sample, failure = self._try(lambda: self.producer.sample(item, on_round))
            except BrokenSlotError as broken:
                self._give_up(item, attempt, broken)
                raise
            failures = self._agree(failure)
        held = [size for size in self.team.gather(self.producer.memory.recorded_bytes) if isinstance(size, int)]
        if not self.team.leads:
            return None
        with contextlib.ExitStack() as stack:
            files: dict[Path, Path] = {}
            record = Record(item.id, "failed", attempt, versions=dict(self.versions))
            if sample is None or failures:
                record = replace(record, error=failures[0])
            else:
                record = replace(record, sampler=sample.stats)
                record = self._finish(stack, files, item, sample, record)
            record = replace(
                record,
                elapsed_s=round(time.monotonic() - started, 3),
                device=self.producer.device,
                memory_bytes=(max(held[0], self.producer.memory.recorded_bytes), *held[1:]),
                host=platform.node(),
                job=self.job,
                mesh={axis: size for axis, size in self.team.mesh.to_dict().items() if axis != "data"},
                finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            return record if self.folder.publish(record, files) else None

    def _give_up(self, item: WorkItem, attempt: int, broken: BrokenSlotError) -> None:
        """Record a failure from the rank where it happened, since the one that leads may never come back."""
        cause = broken.__cause__ if isinstance(broken.__cause__, Exception) else broken
        record = Record(item.id, "failed", attempt, error=self._failure(cause), versions=dict(self.versions))
        finished_at = datetime.now(UTC).isoformat(timespec="seconds")
        record = replace(record, host=platform.node(), job=self.job, finished_at=finished_at)
        self.folder.publish(record, {})

    def _agree(self, failure: dict[str, Any] | None) -> list[dict[str, Any]]:
        """Return what failed on any rank of the team, ranks that only heard of it last."""
        failures = [error for error in self.team.gather(failure) if error is not None]
        return sorted(failures, key=lambda error: error["kind"] == BYSTANDER)

    def _try(self, work: Callable[[], T]) -> tuple[T | None, dict[str, Any] | None]:
        try:
            return work(), None
        except BrokenSlotError:
            raise
        except Exception as error:
            return None, self._failure(error)

    def _finish(
        self,
        stack: contextlib.ExitStack,
        files: dict[Path, Path],
        item: WorkItem,
        sample: Sample,
        record: Record,
    ) -> Record:
        """Write latents and media under temporary names; a decoding that fails keeps the latents."""
        if self.save_latents:
            record = self._keep_latents(stack, files, sample, record)
        try:
            frames, saving = self._decode(sample)
            temporary, media = self._write_media(stack, item, frames, saving)
        except DecodeError as failure:
            error = self._failure(failure)
            kept = record if self.save_latents else self._keep_latents(stack, files, sample, record)
            return replace(kept, error=error)
        files[temporary] = media
        sha256 = sha256_of(temporary)
        return replace(record, status="done", media=self.folder.relative(media), sha256=sha256, saving=saving)

    def _decode(self, sample: Sample) -> tuple[Any, tuple[str, ...]]:
        """Decode; where memory runs out once more, in tiles and slices. Returns the frames, and what it took."""
        with _as_decode_error():
            try:
                return sample.decode(), ()
            except Exception as error:
                if kind_of(error) != OUT_OF_MEMORY:
                    raise
                self._failure(error)
            # Only here, where the failed decoding's tensors are no longer held by its traceback.
            try:
                return sample.decode_saving_memory()
            except Exception as error:
                if kind_of(error) != OUT_OF_MEMORY:
                    raise
                raise OutOfVaeMemoryError(f"{error} (also in tiles and slices)") from error

    def _write_media(
        self, stack: contextlib.ExitStack, item: WorkItem, frames: Any, saving: tuple[str, ...]
    ) -> tuple[Path, Path]:
        """Write; returns the temporary file and its final name."""
        media = self.folder.media_path(item, self.producer.suffix(item, frames))
        temporary = stack.enter_context(self.folder.staged(media))
        with _as_decode_error(passing=(OSError,)):
            self.producer.write(temporary, frames, metadata_of(item, saving))
        return temporary, media

    def _keep_latents(
        self, stack: contextlib.ExitStack, files: dict[Path, Path], sample: Sample, record: Record
    ) -> Record:
        final = self.folder.latents_path(record.item_id)
        temporary = stack.enter_context(self.folder.staged(final))
        sample.save_latents(temporary)
        files[temporary] = final
        return replace(record, latents=self.folder.relative(final), latents_sha256=sha256_of(temporary))

    def _failure(self, error: Exception) -> dict[str, Any]:
        traceback.print_exception(error, file=sys.stderr)
        return describe(error, rank=self.team.rank, log=self.log)


def wants_latents(document: dict[str, Any]) -> bool:
    """Whether a resolved job keeps latents: when told to, or when a metric or a gate on drift needs them."""
    output = document.get("output") or {}
    gated = (name.removeprefix("drift.") for name in document.get("gates") or ())
    needed = {*map(metric_name, document.get("score") or ()), *gated}
    return bool(output.get("save_latents")) or not LATENT_METRICS.isdisjoint(needed)


def metadata_of(item: WorkItem, saving: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what is embedded in an item's media file: all that is needed to make it again."""
    from genrun import __version__

    metadata = {"genrun": __version__, "item": json.loads(item.to_json())}
    return {**metadata, "saving": list(saving)} if saving else metadata


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _as_decode_error(passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn what goes wrong with a picture into DecodeError, but for the exceptions `passing` by."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (DecodeError, *passing)):
            raise
        raise DecodeError(f"{type(error).__name__}: {error}") from error
