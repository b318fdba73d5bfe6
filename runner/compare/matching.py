"""Items of runs as they are compared, and the cells of one side matched with their baselines on the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from genrun.registry import did_you_mean
from genrun.runner.errors import UsageError
from genrun.runner.job.schema import AUDIT, COSTS
from genrun.runner.score.metrics import AUDITED, IS_REFERENCE, compares
from genrun.runner.score.scoring import known_scores
from genrun.runner.store.records import SET, Record, Score
from genrun.runner.store.scores import metrics_of

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.folder import RunFolder


Key = tuple[str, str | None, int, str]
"""Prompt, negative prompt, seed and own fields."""

Axes = tuple[tuple[str, str], ...]
"""Axis and label, in the order of the matrix."""


Ways = Mapping[str, frozenset[tuple[int, str]]]
"""Metric -> the versions and options, as JSON, that its values were measured with."""


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
    def key(self) -> Key:
        """Prompt, negative prompt, seed and own fields, which it shares with its pair in another cell."""
        planned = self.planned
        return planned.prompt, planned.negative_prompt, planned.seed, planned.own

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
        ways: metric -> the versions and options that its values were measured with.
    """

    run: RunFolder
    cells: Mapping[Axes, tuple[ComparedItem, ...]]
    metrics: Mapping[str, bool]
    sets: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    ways: Ways = field(default_factory=dict)

    def sets_of(self, label: str) -> Mapping[str, Score]:
        """Return the scores of a cell's items together; {} where there are none."""
        return self.sets.get(label, {})


def read_cells(run: RunFolder) -> Cells:
    """Read a run: its plan, records and scores.

    Raises:
        StoreError: the plan or a record cannot be read.
    """
    items, records = run.items(), run.records()
    known = known_scores(run, items, records)
    scores = known.scores
    rows: dict[str, dict[str, Score]] = {}
    for score in scores:
        rows.setdefault(score.item_id, {})[score.metric] = score
    cells: dict[Axes, list[ComparedItem]] = {}
    for planned in items:
        record = records.get(planned.id)
        media = str(run.path / record.media) if record is not None and record.media else None
        item = ComparedItem(planned, record, rows.get(planned.id, {}), media, run)
        cells.setdefault(tuple(planned.axes.items()), []).append(item)
    order = list(metrics_of(run.job_document()))
    sets = {name.removeprefix(SET): found for name, found in rows.items() if name.startswith(SET)}
    by_axes = {axes: tuple(members) for axes, members in cells.items()}
    return Cells(run, by_axes, _metrics(scores, order), sets, known.ways)


def is_reference_only(items: Sequence[ComparedItem], metric: str) -> bool:
    """Return True when a metric is the distance to these very items, so that it has no value on them."""
    rows = [row for item in items if (row := item.scores.get(metric.partition(".")[0])) is not None]
    if any(row.value is not None for row in rows):
        return False
    # One of them may have failed, which is its reason then.
    if any(row.reason == IS_REFERENCE for row in rows):
        return True
    return bool(items) and all(item.planned.is_reference for item in items) and compares(metric)


def _metrics(scores: Sequence[Score], order: Sequence[str]) -> dict[str, bool]:
    found = {score.metric: score.higher_is_better for score in scores}
    place = {name: index for index, name in enumerate(order)}
    names = sorted(found, key=lambda name: (place.get(name.partition(".")[0], len(order)), name))
    return {name: found[name] for name in names}


SEQUENTIAL = "sequential"
SHOWN = 6
"""Labels that a message lists."""


@dataclass(frozen=True)
class Match:
    """A cell of the candidate and its baseline.

    Attributes:
        label: of the cell.
        axes: of the cell.
        items: its items.
        baseline_label: of the baseline's cell, "" without one.
        baseline: items of that cell, or None without a baseline.
        sets: metric -> score of the cell's items together.
        baseline_sets: the same of the baseline.
        by: the axis in which the two differ, of cells of one run.
    """

    label: str
    axes: Axes
    items: tuple[ComparedItem, ...]
    baseline_label: str = ""
    baseline: tuple[ComparedItem, ...] | None = None
    sets: Mapping[str, Score] = field(default_factory=dict)
    baseline_sets: Mapping[str, Score] = field(default_factory=dict)
    by: str | None = None

    def pairs(self) -> list[tuple[ComparedItem, ComparedItem]]:
        """Return (baseline, candidate) for every prompt and seed that both have, in the order of the candidate's plan."""
        partners = {item.key: item for item in self.baseline or ()}
        if self.by in NEGATIVE_AXES:
            # Whoever compares negative prompts pairs items that differ in them, but for prompts that have their own.
            alike = partners.keys() & {item.key for item in self.items}
            others = {_without(item.key): item for item in self.baseline or () if item.key not in alike}
            found = [(partners.get(item.key) or others.get(_without(item.key)), item) for item in self.items]
            return [(partner, item) for partner, item in found if partner is not None]
        return [(partners[item.key], item) for item in self.items if item.key in partners]


NEGATIVE_AXES = ("sampling", "sampling.negative_prompt")
"""Axes that the negative prompt may be of."""


def _without(key: Key) -> tuple[str, int, str]:
    """Leave the negative prompt out of a key."""
    prompt, _, seed, own = key
    return prompt, seed, own


def label_of(axes: Axes, items: Sequence[ComparedItem]) -> str:
    """Name a cell by the labels of its axes, or by its solver when the job has no matrix."""
    return ", ".join(label for _, label in axes) or str(items[0].planned.solver.get("kind", "?"))


def match_runs(baseline: Cells | None, candidate: Cells) -> tuple[list[Match], list[str]]:
    """Match the cells of two runs: by their labels, or everything with the baseline's only cell.

    Returns:
        The matches, and the labels of cells that have no partner.

    Raises:
        UsageError: the runs have no cell in common.
    """
    if baseline is None:
        return [_alone(candidate, axes) for axes in candidate.cells], []
    only = next(iter(baseline.cells)) if len(baseline.cells) == 1 else None
    matches, unmatched = [], []
    for axes, items in candidate.cells.items():
        partner = axes if axes in baseline.cells else only
        if partner is None:
            unmatched.append(label_of(axes, items))
            continue
        matches.append(_match(candidate, axes, baseline, partner))
    used = {match.baseline_label for match in matches}
    theirs = [label_of(axes, items) for axes, items in baseline.cells.items()]
    if not matches:
        raise UsageError(
            f"no cell of {candidate.run.path} is one of {baseline.run.path}: {_few(unmatched)} against {_few(theirs)}.",
            remedy="Compare runs whose matrix has the same labels, or a run with itself: genrun compare RUN --by AXIS.",
        )
    return matches, unmatched + [label for label in theirs if label not in used]


def match_cells(run: Cells, by: str | None, baseline: str | None) -> tuple[str, list[Match], list[str]]:
    """Match the cells of one run along an axis: those that differ in it alone.

    Returns:
        The axis, the matches, and the labels of cells without a partner.

    Raises:
        UsageError: there is no such axis or label, or it has to be named.
    """
    axis = _axis(run, by)
    reference = _reference(run, axis, baseline)
    partners = {_others(axes, axis): axes for axes in run.cells if dict(axes).get(axis) == reference}
    matches, unmatched = [], []
    for axes, items in run.cells.items():
        partner = partners.get(_others(axes, axis))
        if partner is None:
            unmatched.append(label_of(axes, items))
        elif partner != axes:
            matches.append(replace(_match(run, axes, run, partner), by=axis))
    return axis, matches, unmatched


def _alone(cells: Cells, axes: Axes) -> Match:
    """Return a cell without a baseline."""
    items = cells.cells[axes]
    label = label_of(axes, items)
    return Match(label, axes, items, sets=cells.sets_of(label))


def _match(candidate: Cells, axes: Axes, baseline: Cells, partner: Axes) -> Match:
    """Return a cell and its baseline."""
    theirs = baseline.cells[partner]
    label = label_of(partner, theirs)
    return replace(
        _alone(candidate, axes), baseline_label=label, baseline=theirs, baseline_sets=baseline.sets_of(label)
    )


def _axis(run: Cells, by: str | None) -> str:
    axes = list(dict.fromkeys(axis for cell in run.cells for axis, _ in cell))
    if by is not None and by not in axes:
        there = f"Axes: {', '.join(axes)}." if axes else "It has no matrix."
        raise UsageError(f"{run.run.path}: no axis {by!r}.{did_you_mean(by, axes)}", remedy=there)
    if by is None and not axes:
        raise UsageError(f"{run.run.path}: one run without a matrix.", remedy="Name two: genrun compare RUN_A RUN_B.")
    if by is None and len(axes) > 1 and "solver" not in axes:
        raise UsageError(f"{run.run.path}: which axis? There are: {', '.join(axes)}.", remedy=f"Add --by {axes[0]}.")
    return by or ("solver" if "solver" in axes else axes[0])


def _reference(run: Cells, axis: str, baseline: str | None) -> str:
    labels = list(dict.fromkeys(label for cell in run.cells for name, label in cell if name == axis))
    if baseline is None:
        return SEQUENTIAL if SEQUENTIAL in labels else labels[0]
    if baseline in labels:
        return baseline
    meant = did_you_mean(baseline, labels)
    raise UsageError(f"--baseline {baseline}: no such label of {axis}.{meant}", remedy=f"Labels: {', '.join(labels)}.")


def _others(axes: Axes, axis: str) -> Axes:
    return tuple(pair for pair in axes if pair[0] != axis)


def _few(labels: Sequence[str]) -> str:
    return "; ".join(labels[:SHOWN]) + ("; ..." if len(labels) > SHOWN else "")
