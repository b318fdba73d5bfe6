"""Metrics of a run, with their options, and the samples they measure: checked files, and the reference of each pair."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.adapters.scorers import registry
from genrun.adapters.scorers.contract import Described, Metric, Sample, SetMetric, UnscoredError, needs_of, options_of
from genrun.registry import UnknownNameError
from genrun.runner.errors import UsageError
from genrun.runner.job.schema import AUDIT, COSTS
from genrun.runner.notes import unscorable_note
from genrun.runner.statistics import ANY, COUNTS, SHARES, Interval
from genrun.runner.store.planfile import name_of
from genrun.runner.store.records import Record, Score
from genrun.runner.store.results import file_of
from genrun.runner.store.scores import metrics_of

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.folder import RunFolder


AUDITED = "latent_rmse"
"""The metric by which an audit tells whether an item is within its tolerance."""

MetricOptions = Mapping[str, Mapping[str, Any]]
"""Metric -> option -> value."""


def wanted_metrics(
    run: RunFolder,
    names: Sequence[str] = (),
    options: MetricOptions | None = None,
    defaults: MetricOptions | None = None,
) -> list[Metric | SetMetric]:
    """Return the metrics named, or those the job names, or all that need nothing besides genrun, ready to measure.

    Args:
        run: the run folder, whose job may name metrics and their options.
        names: of metrics; those that the job names when empty.
        options: over those of the job.
        defaults: under those of the job, such as where tools are on this machine.

    Raises:
        UsageError: no metric of that name, or no such option.
    """
    document = run.job_document()
    of_job = metrics_of(document)
    # What an audit compares is measured whatever else is.
    audited = [AUDITED] if document.get(AUDIT) is not None and of_job else []
    try:
        chosen = names or [*of_job, *audited] or [name for name in registry.names() if not needs_of(registry.get(name))]
        for name in (options or {}).keys() - set(chosen):
            raise UsageError(f"{name} is given options, but is not measured.", remedy=f"Add it: --metrics {name}")
        layers = (defaults or {}, of_job, options or {})
        metrics: list[Metric | SetMetric] = []
        for name in dict.fromkeys(chosen):
            given = {option: value for layer in layers for option, value in layer.get(name, {}).items()}
            metrics.append(configured(registry.get(name), given) if given else registry.get(name))
        return metrics
    except UnknownNameError as error:
        raise UsageError(str(error)) from error


def configured(metric: Metric | SetMetric, given: Mapping[str, Any]) -> Any:
    """Return a metric with some of its options changed.

    Raises:
        UsageError: an option that it does not have, or a value that it does not take.
    """
    from genrun.runner.job.options import typed

    values, wrong = typed(type(options_of(metric)), given) if options_of(metric) is not None else ({}, "it has none")
    if wrong:
        raise UsageError(f"options of {metric.name}: {wrong}", remedy="genrun score --help lists them.")
    return dataclasses.replace(metric, options=type(options_of(metric))(**values))  # pyright: ignore[reportArgumentType]


def style_of(metric: str) -> str:
    """Return how the values of a metric, a part of one or a drift are written: "share", "decibel" or "number"."""
    base = metric.removeprefix("drift.").partition(".")[0]
    return registry.get(base).style if base in registry.names() else "number"


def bounds_of(metric: str) -> Interval:
    """Return where the values of a metric, a cost, a part of a metric, or a drift can lie, as far as anything tells."""
    if metric in COSTS:
        return COUNTS
    name = metric.removeprefix("drift.")
    if name in registry.names():
        return getattr(registry.get(name), "bounds", ANY)
    # What the parts of a metric measure, only their style tells.
    return SHARES if style_of(metric) == "share" else ANY


def compares(metric: str) -> bool:
    """Return True for a metric, or a part of one, that needs the sequential item of the same prompt and seed."""
    base = metric.partition(".")[0]
    return base in registry.names() and registry.get(base).compares


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
