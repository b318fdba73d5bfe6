"""Read a run for a comparison: its cells, and each item's numbers or the reason why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from genrun.runner.job.schema import AUDIT, COSTS
from genrun.runner.score.metrics import AUDITED, compares
from genrun.runner.score.samples import IS_REFERENCE
from genrun.runner.store.records import SET, Record, Score
from genrun.runner.store.scores import metrics_of, read_scores

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.folder import RunFolder

Axes = tuple[tuple[str, str], ...]
"""Axis and label, in the order of the matrix."""


@dataclass(frozen=True)
class Number:
    """A measured value, or the reason why there is none."""

    value: float | None
    reason: str = ""


@dataclass(frozen=True)
class ComparedItem:
    """A planned item, with its record and scores.

    Attributes:
        planned: the item of the plan.
        record: its outcome, or None.
        scores: metric -> its row.
        media: its clip or picture, absolute, or None.
        run: the run it is of.
    """

    planned: WorkItem
    record: Record | None
    scores: Mapping[str, Score]
    media: str | None
    run: RunFolder

    @property
    def key(self) -> tuple[str, str, int, str]:
        """Prompt, negative prompt ("" for none), seed and own fields, which it shares with its pair in another cell."""
        planned = self.planned
        return planned.prompt, planned.negative_prompt or "", planned.seed, planned.own

    @property
    def is_done(self) -> bool:
        """True when it was generated."""
        return self.record is not None and self.record.status == "done"

    def number(self, metric: str) -> Number:
        """Return the value of a metric or of a cost."""
        if not self.is_done:
            return Number(None, "not generated yet" if self.record is None else "generation failed")
        if metric in COSTS:
            return self._cost(metric)
        if metric == AUDIT:
            return self._within()
        row = self.scores.get(metric) or self.scores.get(metric.partition(".")[0])
        if row is None:
            return Number(None, "not scored yet: genrun score")
        if row.value is None:
            return Number(None, row.reason or "not scored")
        return Number(row.value) if row.metric == metric else Number(None, f"{row.metric} has no such part")

    @property
    def is_audited(self) -> bool:
        """True when it is held against its tolerance; a sequential item is what others are held against."""
        return self.planned.audit and not self.planned.is_reference

    def _within(self) -> Number:
        error = self.number(AUDITED)
        tolerance = self.planned.promise.get("tolerance", self.planned.solver.get("tolerance"))
        if error.value is None or not isinstance(tolerance, int | float):
            return Number(None, error.reason or "it has no tolerance")
        return Number(float(error.value <= tolerance))

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
        metrics: metric -> True when higher is better, in the order of the job's `score`.
        sets: label of a cell -> metric -> the score of all its items together.
    """

    run: RunFolder
    cells: Mapping[Axes, tuple[ComparedItem, ...]]
    metrics: Mapping[str, bool]
    sets: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)

    def sets_of(self, label: str) -> Mapping[str, Score]:
        """Return the scores of a cell's items together; {} where there are none."""
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
    cells: dict[Axes, list[ComparedItem]] = {}
    for planned in run.items():
        record = records.get(planned.id)
        media = str(run.path / record.media) if record is not None and record.media else None
        item = ComparedItem(planned, record, rows.get(planned.id, {}), media, run)
        cells.setdefault(tuple(planned.axes.items()), []).append(item)
    order = list(metrics_of(run.job_document()))
    sets = {name.removeprefix(SET): found for name, found in rows.items() if name.startswith(SET)}
    return Cells(run, {axes: tuple(items) for axes, items in cells.items()}, _metrics(scores, order), sets)


def is_reference_only(items: Sequence[ComparedItem], metric: str) -> bool:
    """Return True when a metric is the distance to these very items, so that it has no value on them."""
    rows = [row for item in items if (row := item.scores.get(metric.partition(".")[0])) is not None]
    if rows:
        return all(row.value is None and row.reason == IS_REFERENCE for row in rows)
    return bool(items) and all(item.planned.is_reference for item in items) and compares(metric)


def _metrics(scores: Sequence[Score], order: Sequence[str]) -> dict[str, bool]:
    found = {score.metric: score.higher_is_better for score in scores}
    place = {name: index for index, name in enumerate(order)}
    names = sorted(found, key=lambda name: (place.get(name.partition(".")[0], len(order)), name))
    return {name: found[name] for name in names}
