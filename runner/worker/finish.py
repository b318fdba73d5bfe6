"""Finishing of a sampled item: decode, write, publish, on a thread while the next item is sampled.

A thread of its own and no executor: an executor's threads are joined when the interpreter ends, and work that does not end
would keep a worker alive that was told to stop.
"""

from __future__ import annotations

import contextlib
import json
import platform
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from genrun.runner.store.files import sha256_of
from genrun.runner.worker.failures import OUT_OF_MEMORY, DecodeError, OutOfVaeMemoryError, kind_of, log_failure

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.records import Record
    from genrun.runner.worker.producer import Producer, SampledItem


FramesAndSaving = tuple[Any, tuple[str, ...]]
"""Frames, and what the VAE had to do to save memory."""


class OverlapMemoryError(Exception):
    """No memory left for decoding while another item is sampled: it is to be done again alone."""


@dataclass
class UnfinishedItem:
    """An item that is sampled, or failed at it, and yet to be finished by the rank that leads.

    Nothing in it talks to other ranks, so that all of it can be done in another thread.

    Attributes:
        folder: the run.
        producer: decodes and writes.
        item: the item.
        record: its record so far: failed, or to be finished.
        sample: the sampled item, or None for a failed one.
        save_latents: whether final latents are kept.
        rank: this rank, for failures.
        log: its log, for failures.
        is_timed: whether decoding and writing count as the item's time; not for one that was sampled long ago.
    """

    folder: RunFolder
    producer: Producer
    item: WorkItem
    record: Record
    sample: SampledItem | None
    save_latents: bool
    rank: int
    log: str
    is_timed: bool = True
    _decoded: FramesAndSaving | DecodeError | None = None

    def decode(self) -> None:
        """Decode now, so that `finish` only has to write."""
        if self.sample is None or self._decoded is not None:
            return
        with self._timed():
            try:
                self._decoded = self._decode(self.sample, is_alone=True)
            except DecodeError as failure:
                self._decoded = failure

    def finish(self, *, is_alone: bool = True) -> Record | None:
        """Write the item's files and then its record: done, or failed with the reason.

        Args:
            is_alone: whether nothing is sampled meanwhile; else memory may be too small for that reason alone.

        Returns:
            The record; None when another worker was first.

        Raises:
            OverlapMemoryError: out of memory, and not alone.
            StoreError: the run folder cannot be written; no item is to blame.
        """
        with contextlib.ExitStack() as stack:
            files: dict[Path, Path] = {}
            with self._timed():
                record = self.record
                if self.sample is not None:
                    record = self._write(stack, files, self.sample, is_alone=is_alone)
            held = record.memory_bytes
            record = replace(
                record,
                elapsed_s=round(self.record.elapsed_s, 3),
                device=self.producer.device,
                memory_bytes=(max(held[0], self.producer.memory.recorded_bytes), *held[1:]),
                host=platform.node(),
                finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            return record if self.folder.publish(record, files) else None

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        """Count the block's time as the item's, and not what it waits between blocks."""
        started = time.monotonic()
        try:
            yield
        finally:
            if self.is_timed:
                spent = time.monotonic() - started
                self.record = replace(self.record, elapsed_s=self.record.elapsed_s + spent)

    def _write(
        self, stack: contextlib.ExitStack, files: dict[Path, Path], sample: SampledItem, *, is_alone: bool
    ) -> Record:
        """Write latents and media under temporary names; a decoding that fails keeps the latents."""
        record = self.record
        if self.save_latents:
            record = self._keep_latents(stack, files, sample, record)
        try:
            decoded = self._decode(sample, is_alone=is_alone) if self._decoded is None else self._decoded
            if isinstance(decoded, DecodeError):
                raise decoded
            temporary, media = self._write_media(stack, *decoded)
        except DecodeError as failure:
            error = log_failure(failure, self.item.id, rank=self.rank, log=self.log)
            kept = record if self.save_latents else self._keep_latents(stack, files, sample, record)
            return replace(kept, error=error)
        files[temporary] = media
        found = {
            "media": self.folder.relative(media),
            "sha256": sha256_of(temporary),
            "media_bytes": temporary.stat().st_size,
            "sound": self.producer.sound(decoded[0]),
        }
        notes = (*record.notes, *self.producer.notes(self.item, decoded[0]))
        return replace(record, status="done", **found, saving=decoded[1], notes=notes)

    def _decode(self, sample: SampledItem, *, is_alone: bool) -> FramesAndSaving:
        """Decode; where memory runs out, once more in tiles and slices."""
        with _as_decode_error(passing=(OverlapMemoryError,)):
            try:
                # What saved memory at first is needed for the same pixels.
                return sample.decode_saving_memory() if self.record.saving else (sample.decode(), ())
            except Exception as error:
                if kind_of(error) != OUT_OF_MEMORY:
                    raise
                if not is_alone:
                    raise OverlapMemoryError from error
                log_failure(error, self.item.id, rank=self.rank, log=self.log)
            # Only here, where the failed decoding's tensors are no longer held by its traceback.
            try:
                return sample.decode_saving_memory()
            except Exception as error:
                if kind_of(error) != OUT_OF_MEMORY:
                    raise
                raise OutOfVaeMemoryError(f"{error} (also in tiles and slices)") from error

    def _write_media(self, stack: contextlib.ExitStack, frames: Any, saving: tuple[str, ...]) -> tuple[Path, Path]:
        """Write the media file; return its temporary name and its final one."""
        media = self.folder.media_path(self.item, self.producer.suffix(self.item, frames))
        temporary = stack.enter_context(self.folder.staged(media))
        with _as_decode_error(passing=(OSError,)):
            self.producer.write(temporary, frames, metadata_of(self.item, saving))
        return temporary, media

    def _keep_latents(
        self, stack: contextlib.ExitStack, files: dict[Path, Path], sample: SampledItem, record: Record
    ) -> Record:
        final = self.folder.latents_path(record.item_id)
        temporary = stack.enter_context(self.folder.staged(final))
        sample.save_latents(temporary)
        files[temporary] = final
        return replace(
            record,
            latents=self.folder.relative(final),
            latents_sha256=sha256_of(temporary),
            latents_bytes=temporary.stat().st_size,
        )


def metadata_of(item: WorkItem, saving: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the metadata embedded in an item's media file: all that is needed to make it again."""
    from genrun.version import __version__

    metadata = {"genrun": __version__, "item": json.loads(item.to_json())}
    return {**metadata, "saving": list(saving)} if saving else metadata


@contextlib.contextmanager
def _as_decode_error(passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn the exceptions of the block into DecodeError, except those of the types in `passing`."""
    try:
        yield
    except Exception as error:
        if isinstance(error, (DecodeError, *passing)):
            raise
        raise DecodeError.of(error) from error


THREAD = "background"

STOP_WAIT_S = 10.0
"""Seconds that a worker that is told to stop waits for its background work: less than its launcher waits for the worker."""

Work = Callable[[], Callable[[], object] | None]
"""Work for the thread; returns what is left to do in the main thread, or None."""


class Background:
    """A thread that does one piece of work at a time; as a context manager it waits for the work at the end."""

    def __init__(self, stop_wait_s: float = STOP_WAIT_S) -> None:
        self._stop_wait_s = stop_wait_s
        self._thread: threading.Thread | None = None
        self._drop: Callable[[], object] | None = None
        self._rest: Callable[[], object] | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
        elif self._thread is not None and self._drop is not None:
            self._thread.join(self._stop_wait_s)
            if self._thread.is_alive() or self._rest is not None:
                self._drop()

    @property
    def is_idle(self) -> bool:
        """True when there is nothing to wait for."""
        return self._thread is None

    def start(self, work: Work, drop: Callable[[], object]) -> None:
        """Begin; wait for the work before.

        Args:
            work: what is done.
            drop: called instead of waiting any longer, when this process is to end and `work` does not.

        Raises:
            Exception: what `wait` raises.
        """
        self.wait()
        self._drop = drop
        self._thread = threading.Thread(target=self._run, args=(work,), name=THREAD, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for the work, and do what it leaves for this thread.

        Raises:
            Exception: what the work raised, or its rest.
        """
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        error, rest = self._error, self._rest
        self._error = self._rest = None
        if error is not None:
            raise error
        if rest is not None:
            rest()

    def _run(self, work: Work) -> None:
        try:
            self._rest = work()
        except BaseException as error:
            self._error = error


def has_dropped_work() -> bool:
    """Return True while work that was dropped still runs in this process: then only `os._exit` ends it safely."""
    return any(thread.name == THREAD for thread in threading.enumerate())
