"""What a comparison reads of a run: its cells, and each item's numbers or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from genrun.adapters.scorers import registry
from genrun.runner.job.schema import COSTS
from genrun.runner.score.choose import metric_name
from genrun.runner.score.run import read_scores
from genrun.runner.score.samples import IS_REFERENCE
from genrun.runner.store.records import SET, Record, Score

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.folder import RunFolder

Key = tuple[str, str, int]
"""Prompt, negative prompt ("" for none) and seed: what pairs two items."""


@dataclass(frozen=True)
class Number:
    """A measured value, or the reason why there is none."""

    value: float | None
    reason: str = ""


@dataclass(frozen=True)
class Entry:
    """One planned item and what is known of it.

    Attributes:
        item: of the plan.
        record: its outcome, or None.
        scores: metric -> its row.
        media: its clip or picture, absolute, or None.
        run: the run it is of.
    """

    item: WorkItem
    record: Record | None
    scores: Mapping[str, Score]
    media: str | None
    run: RunFolder

    @property
    def key(self) -> Key:
        """What pairs it with an item of another cell."""
        return self.item.prompt, self.item.negative_prompt or "", self.item.seed

    @property
    def is_done(self) -> bool:
        """Whether it was generated."""
        return self.record is not None and self.record.status == "done"

    def number(self, metric: str) -> Number:
        """The value of a metric or of a cost."""
        if not self.is_done:
            return Number(None, "not generated yet" if self.record is None else "generation failed")
        if metric in COSTS:
            return self._cost(metric)
        row = self.scores.get(metric) or self.scores.get(metric.partition(".")[0])
        if row is None:
            return Number(None, "not scored yet: genrun score")
        if row.value is None:
            return Number(None, row.reason or "not scored")
        return Number(row.value) if row.metric == metric else Number(None, f"{row.metric} has no such part")

    def _cost(self, name: str) -> Number:
        if self.record is None or (name != "elapsed_s" and self.record.sampler is None):
            return Number(None, "its cost was not recorded")
        return Number(float(getattr(self.record if name == "elapsed_s" else self.record.sampler, name)))


@dataclass(frozen=True)
class Cells:
    """A run by its cells.

    Attributes:
        run: the run.
        cells: axes' labels -> the cell's items, in the order of the plan.
        metrics: metric -> whether higher is better, in the order of the job's `score`.
        sets: label of a cell -> metric -> the score of all its items together.
    """

    run: RunFolder
    cells: Mapping[tuple[tuple[str, str], ...], tuple[Entry, ...]]
    metrics: Mapping[str, bool]
    sets: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)

    def sets_of(self, label: str) -> Mapping[str, Score]:
        """The scores of a cell's items together; {} where there are none."""
        return self.sets.get(label, {})


def read_cells(run: RunFolder) -> Cells:
    """Read a run: its plan, records and scores.

    Raises:
        StoreError: the plan or a record cannot be read.
    """
    records, scores = run.records(), read_scores(run)
    rows: dict[str, dict[str, Score]] = {}
    for score in scores:
        rows.setdefault(score.item_id, {})[score.metric] = score
    cells: dict[tuple[tuple[str, str], ...], list[Entry]] = {}
    for item in run.items():
        record = records.get(item.id)
        media = str(run.path / record.media) if record is not None and record.media else None
        entry = Entry(item, record, rows.get(item.id, {}), media, run)
        cells.setdefault(tuple(item.axes.items()), []).append(entry)
    order = [metric_name(entry) for entry in run.job_document().get("score") or ()]
    sets = {name.removeprefix(SET): found for name, found in rows.items() if name.startswith(SET)}
    return Cells(run, {axes: tuple(entries) for axes, entries in cells.items()}, _metrics(scores, order), sets)


def is_reference_only(entries: Sequence[Entry], metric: str) -> bool:
    """Whether a metric is about the distance to these very items, so that it has no value on them."""
    rows = [row for entry in entries if (row := entry.scores.get(metric.partition(".")[0])) is not None]
    if rows:
        return all(row.value is None and row.reason == IS_REFERENCE for row in rows)
    return bool(entries) and all(entry.item.is_reference for entry in entries) and compares(metric)


def compares(metric: str) -> bool:
    """Whether a metric needs the sequential item of the same prompt and seed."""
    base = metric.partition(".")[0]
    return base in registry.names() and registry.get(base).compares


def style_of(metric: str) -> str:
    """How a metric's values are written: "share", "decibel" or "number"."""
    base = metric.removeprefix("drift.").partition(".")[0]
    return registry.get(base).style if base in registry.names() else "number"


def _metrics(scores: Sequence[Score], order: Sequence[str]) -> dict[str, bool]:
    found = {score.metric: score.higher_is_better for score in scores}
    place = {name: index for index, name in enumerate(order)}
    names = sorted(found, key=lambda name: (place.get(name.partition(".")[0], len(order)), name))
    return {name: found[name] for name in names}
