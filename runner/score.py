"""Scores the items of a run: every metric on every item, kept in `scores/<metric>.jsonl`.

A score is measured again only when a file it was measured on, or the metric's version, has changed. What could not be
measured is a row too, with the reason, and is tried again the next time. Files are replaced atomically every few
items, so that scoring that is cut off goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.adapters.scorers import registry
from genrun.adapters.scorers.contract import Metric, Sample, UnscoredError
from genrun.runner.errors import UsageError
from genrun.runner.store.files import atomic_write
from genrun.runner.store.records import Record, Score

if TYPE_CHECKING:
    from genrun.runner.plan import WorkItem
    from genrun.runner.store.folder import RunFolder

SAVE_EVERY = 50
SEQUENTIAL = "sequential"
IS_REFERENCE = "this is the sequential item that the others are compared with"


@dataclass(frozen=True)
class Measured:
    """The scores of one metric on one item, and the files they were measured on.

    Attributes:
        scores: the metric's number and its parts; a single row without a value when it could not be measured.
        inputs: SHA-256 of the item's file and, for metrics that compare, of the reference's; "" when there is none.
    """

    scores: tuple[Score, ...]
    inputs: tuple[str, ...]

    def holds_for(self, metric: Metric, inputs: tuple[str, ...]) -> bool:
        """Whether measuring again would give the same."""
        return self.inputs == inputs and all(
            score.value is not None and score.version == metric.version for score in self.scores
        )


def wanted_metrics(run: RunFolder, names: Sequence[str] = ()) -> list[Metric]:
    """Return the metrics named, or those the job names, or all that come with genrun.

    Raises:
        UsageError: no metric of that name.
    """
    chosen = names or run.job_document().get("score") or registry.names()
    try:
        return [registry.get(name) for name in dict.fromkeys(chosen)]
    except ValueError as error:
        raise UsageError(str(error)) from error


def score_run(
    run: RunFolder, metrics: Sequence[Metric], progress: Callable[[int, int], None] = lambda done, total: None
) -> list[Score]:
    """Score every item of a run and return all rows, by metric, then in the order of the plan.

    Args:
        run: the run folder; files are written to its `scores/` only.
        metrics: what to measure.
        progress: called with (items looked at, items in all).
    """
    items = run.items()
    book = _Book(run, metrics, items)
    bench = _Bench(run, items)
    try:
        for done, item in enumerate(bench.by_pair(), start=1):
            for metric in metrics:
                book.enter(metric, item.id, bench.inputs(metric, item), lambda m=metric, i=item: bench.measure(m, i))
            bench.drop(item)
            progress(done, len(items))
    finally:
        book.save()
    return book.rows()


def read_scores(run: RunFolder) -> list[Score]:
    """Return all rows that earlier scoring left in a run folder."""
    files = sorted(run.scores_path("any").parent.glob("*.jsonl"))
    return [score for file in files for entry in _read(file).values() for score in entry.scores]


def references(items: Iterable[WorkItem]) -> dict[str, WorkItem]:
    """Return the sequential item of each pair, by pair."""
    found: dict[str, WorkItem] = {}
    for item in items:
        if item.solver.get("kind") == SEQUENTIAL:
            found.setdefault(item.pair, item)
    return found


class _Bench:
    """Holds the samples of a run while they are measured: one pair's reference and one item at a time."""

    def __init__(self, run: RunFolder, items: Sequence[WorkItem]) -> None:
        self._folder = run.path
        self._items = items
        self._records = run.records()
        self._references = references(items)
        self._samples: dict[str, Sample] = {}
        self._hashes: dict[Path, str] = {}

    def by_pair(self) -> list[WorkItem]:
        """The items, those of a pair together, so that a reference is read once."""
        order = {pair: index for index, pair in enumerate(dict.fromkeys(item.pair for item in self._items))}
        return sorted(self._items, key=lambda item: order[item.pair])

    def inputs(self, metric: Metric, item: WorkItem) -> tuple[str, ...]:
        """Hashes of the files that `metric` reads for `item`, taken from the files themselves."""
        subjects = [item, self._references.get(item.pair)] if metric.compares else [item]
        return tuple(self._hash(metric, subject) for subject in subjects)

    def measure(self, metric: Metric, item: WorkItem) -> tuple[Score, ...]:
        """Measure, or say why not."""
        try:
            values = metric.measure(self._sample(item), self._reference(metric, item))
            bad = [name for name, value in values.items() if not math.isfinite(value)]
            if bad:
                raise UnscoredError(f"not a finite number: {', '.join(bad)}")
        except UnscoredError as error:
            return (_unscored(metric, item, str(error)),)
        except Exception as error:  # a metric of another package may raise anything; the other scores go on
            return (_unscored(metric, item, f"{type(error).__name__}: {error}"),)
        return tuple(
            Score(item.id, name, float(value), metric.higher_is_better, version=metric.version)
            for name, value in values.items()
        )

    def drop(self, item: WorkItem) -> None:
        """Forget what was read for `item`; the reference of the current pair is kept."""
        keep = self._references.get(item.pair)
        self._samples = {key: held for key, held in self._samples.items() if keep is not None and key == keep.id}

    def _reference(self, metric: Metric, item: WorkItem) -> Sample | None:
        if not metric.compares:
            return None
        reference = self._references.get(item.pair)
        if reference is None:
            raise UnscoredError("no sequential item of this prompt and seed in the plan")
        if reference.id == item.id:
            raise UnscoredError(IS_REFERENCE)
        try:
            return self._sample(reference)
        except UnscoredError as error:
            raise UnscoredError(f"the sequential item: {error}") from error

    def _sample(self, item: WorkItem) -> Sample:
        if item.id not in self._samples:
            record = self._records.get(item.id)
            if record is None:
                raise UnscoredError("not generated yet")
            if record.status != "done":
                raise UnscoredError("generation failed")
            self._samples[item.id] = Sample(
                caption=item.prompt,
                adapter=str(item.model.get("adapter", "")),
                media=self._file(record.media),
                latents=self._file(record.latents),
                num_frames=item.sampling.get("num_frames"),
            )
        return self._samples[item.id]

    def _file(self, relative: str | None) -> Path | None:
        return None if relative is None else self._folder / relative

    def _hash(self, metric: Metric, item: WorkItem | None) -> str:
        record = self._records.get(item.id) if item else None
        path = self._file(getattr(record, metric.reads)) if isinstance(record, Record) else None
        if path is None or not path.is_file():
            return ""
        if path not in self._hashes:
            with path.open("rb") as file:
                self._hashes[path] = hashlib.file_digest(file, "sha256").hexdigest()
        return self._hashes[path]


class _Book:
    """The score files of a run, in memory."""

    def __init__(self, run: RunFolder, metrics: Sequence[Metric], items: Sequence[WorkItem]) -> None:
        self._paths = {metric.name: run.scores_path(metric.name) for metric in metrics}
        self._entries = {name: _read(path) for name, path in self._paths.items()}
        self._order = [item.id for item in items]
        self._unsaved = 0

    def enter(
        self, metric: Metric, item_id: str, inputs: tuple[str, ...], measure: Callable[[], tuple[Score, ...]]
    ) -> None:
        """Keep what is known of an item if it still holds, else measure it."""
        known = self._entries[metric.name].get(item_id)
        if known is not None and known.holds_for(metric, inputs):
            return
        self._entries[metric.name][item_id] = Measured(measure(), inputs)
        self._unsaved += 1
        if self._unsaved >= SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Replace the files, if anything changed."""
        if not self._unsaved:
            return
        for name, path in self._paths.items():
            lines = [
                json.dumps({**asdict(score), "inputs": entry.inputs}) + "\n"
                for entry in self._in_order(name)
                for score in entry.scores
            ]
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, "".join(lines).encode())
        self._unsaved = 0

    def rows(self) -> list[Score]:
        """All rows, by metric, then in the order of the plan."""
        return [score for name in self._paths for entry in self._in_order(name) for score in entry.scores]

    def _in_order(self, name: str) -> list[Measured]:
        entries = self._entries[name]
        return [entries[item_id] for item_id in self._order if item_id in entries]


def _unscored(metric: Metric, item: WorkItem, reason: str) -> Score:
    return Score(item.id, metric.name, None, metric.higher_is_better, reason, metric.version)


def _read(path: Path) -> dict[str, Measured]:
    if not path.is_file():
        return {}
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = _parsed(line)
        if row is not None:
            grouped.setdefault(row["item_id"], []).append(row)
    return {
        item_id: Measured(
            tuple(Score(**{f.name: row[f.name] for f in fields(Score)}) for row in rows), tuple(rows[0]["inputs"])
        )
        for item_id, rows in grouped.items()
    }


def _parsed(line: str) -> Mapping[str, Any] | None:
    """One row, or None when somebody's editor broke the line: it is then measured again."""
    try:
        row = json.loads(line)
        complete = {f.name for f in fields(Score)} | {"inputs"} <= row.keys()
    except (json.JSONDecodeError, AttributeError):
        return None
    return row if complete else None
