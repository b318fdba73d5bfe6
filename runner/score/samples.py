"""Samples of a run for metrics: their files, checked to be as they were made, and the reference of each pair."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.adapters.scorers.contract import Described, Metric, Sample, UnscoredError
from genrun.runner.notes import unscorable_note
from genrun.runner.store.inputs import name_of
from genrun.runner.store.records import Record, Score
from genrun.runner.store.results import file_of

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.folder import RunFolder

SEQUENTIAL = "sequential"
IS_REFERENCE = "this is the sequential item that the others are compared with"
"""Reason of a score without a value: of a metric that compares, on the sequential item itself."""

SHOWN_DIGITS = 12


class Samples:
    """The samples that metrics read; one pair's reference and one item are held at a time, since clips are large."""

    def __init__(self, run: RunFolder, items: Sequence[WorkItem]) -> None:
        self._folder = run.path
        self._items = items
        self._records = run.records()
        self._references: dict[str, WorkItem] = {}
        for item in items:
            if item.is_reference:
                self._references.setdefault(item.pair, item)
        self._samples: dict[str, Sample] = {}
        self._hashes: dict[Path, str] = {}

    def by_pair(self) -> list[list[WorkItem]]:
        """Return the items, those of a pair together, so that a reference is read once."""
        pairs: dict[str, list[WorkItem]] = {}
        for item in self._items:
            pairs.setdefault(item.pair, []).append(item)
        return list(pairs.values())

    def inputs(self, metric: Metric, item: WorkItem) -> tuple[str, ...]:
        """Hash the files that `metric` reads for `item`."""
        subjects = [item, self._references.get(item.pair)] if metric.compares else [item]
        return tuple(self.hash(metric, subject) for subject in subjects)

    def measure(self, metric: Metric, item: WorkItem) -> tuple[Score, ...]:
        """Measure an item; a row without a value says why that was not possible."""
        try:
            values = metric.measure(self.sample(metric, item), self._reference(metric, item))
            bad = [name for name, value in values.items() if not math.isfinite(value)]
            if bad:
                raise UnscoredError(f"not a finite number: {', '.join(bad)}")
        except UnscoredError as error:
            return (unscored(metric, item.id, str(error)),)
        except Exception as error:  # a metric of another package may raise anything; the other scores go on
            return (unscored(metric, item.id, f"{type(error).__name__}: {error}"),)
        return tuple(
            Score(item.id, name, float(value), metric.higher_is_better, version=metric.version)
            for name, value in values.items()
        )

    def sample(self, metric: Described, item: WorkItem) -> Sample:
        """Return the item's files.

        Raises:
            UnscoredError: it has none, or the one that the metric reads has changed since it was made.
        """
        record = self._records.get(item.id)
        if record is None:
            raise UnscoredError("not generated yet")
        if record.status != "done":
            raise UnscoredError("generation failed")
        note = unscorable_note(record.notes) if metric.reads == "media" else None
        if note is not None:
            raise UnscoredError(f"not what the model made: {note.message}")
        if item.id not in self._samples:
            self._samples[item.id] = self._new_sample(item, record)
        self._check_unchanged(metric, item, record)
        return self._samples[item.id]

    def drop(self, item: WorkItem) -> None:
        """Forget what was read for `item`; the reference of the current pair is kept."""
        keep = self._references.get(item.pair)
        self._samples = {key: held for key, held in self._samples.items() if keep is not None and key == keep.id}

    def hash(self, metric: Described, item: WorkItem | None) -> str:
        """Return the SHA-256 of the file that a metric reads for an item, or "" when there is none."""
        record = self._records.get(item.id) if item else None
        path = file_of(self._folder, record, metric.reads) if isinstance(record, Record) else None
        if path is None or not path.is_file():
            return ""
        if path not in self._hashes:
            with path.open("rb") as file:
                self._hashes[path] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._hashes[path]

    def _reference(self, metric: Metric, item: WorkItem) -> Sample | None:
        if not metric.compares:
            return None
        reference = self._references.get(item.pair)
        if reference is None:
            raise UnscoredError("no sequential item of this prompt and seed in the plan")
        if reference.id == item.id:
            raise UnscoredError(IS_REFERENCE)
        try:
            return self.sample(metric, reference)
        except UnscoredError as error:
            raise UnscoredError(f"the sequential item: {error}") from error

    def _new_sample(self, item: WorkItem, record: Record) -> Sample:
        height, width = item.sampling.get("height"), item.sampling.get("width")
        return Sample(
            caption=item.prompt,
            adapter=str(item.model.get("adapter", "")),
            media=file_of(self._folder, record, "media"),
            latents=file_of(self._folder, record, "latents"),
            num_frames=item.sampling.get("num_frames"),
            size=None if height is None or width is None else (height, width),
            name=item.id,
            seed=item.seed,
            inputs={
                field: tuple(self._folder / name_of(file["sha256"], file["suffix"]) for file in files)
                for field, files in item.inputs.items()
            },
        )

    def _check_unchanged(self, metric: Described, item: WorkItem, record: Record) -> None:
        recorded = record.sha256 if metric.reads == "media" else record.latents_sha256
        found = self.hash(metric, item)
        if not recorded or not found or found == recorded:
            return
        path = getattr(record, metric.reads)
        message = (
            f"{Path(path).name} is not the file that was made: its sha256 is {found[:SHOWN_DIGITS]}..., its record says "
            f"{recorded[:SHOWN_DIGITS]}...; genrun verify lists such files"
        )
        if metric.reads == "media":
            try:
                _ = self._samples[item.id].frames
            except UnscoredError as error:
                raise UnscoredError(f"{error} ({message})") from error
        raise UnscoredError(message)


def unscored(metric: Described, item_id: str, reason: str, name: str = "") -> Score:
    """Return a row without a value."""
    return Score(item_id, name or metric.name, None, metric.higher_is_better, reason, metric.version)
