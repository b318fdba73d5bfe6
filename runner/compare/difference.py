"""Differences between a cell and its baseline, estimated over pairs of items; drift among them.

`drift.NAME` is the metric NAME, one of those that compare with the sequential sampler, with the baseline's item in the
sequential one's place: it sees any change of the pictures, also one that the sequential sampler shares. Values
are kept in the candidate's `scores/drift/`, under the hashes of both files.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from heapq import nsmallest
from typing import TYPE_CHECKING, NamedTuple

from genrun.adapters.scorers import registry
from genrun.adapters.scorers.contract import Metric, Sample, UnscoredError, settings_of
from genrun.runner import statistics
from genrun.runner.compare.gates import NO_BASELINE
from genrun.runner.compare.matching import ComparedItem, Match, Number, Ways, is_reference_only
from genrun.runner.compare.results import Difference, Mean, Pair, PairedItem
from genrun.runner.job.schema import AUDIT
from genrun.runner.notes import unscorable_note
from genrun.runner.score.metrics import bounds_of, configured, style_of
from genrun.runner.store.files import atomic_write, sha256_of
from genrun.runner.store.records import Score
from genrun.runner.store.results import file_of
from genrun.runner.store.scores import metrics_of, settings_text

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder


# As many as a person looks through.
WORST = 10
"""Pairs of a metric that are listed as the worst."""

MOST_LETTERS = 40
"""Letters of an option that a reason shows."""

Pairs = Sequence[tuple[ComparedItem, ComparedItem]]
"""(baseline, candidate) of the same prompt and seed."""


class Measured(NamedTuple):
    """A pair of items and their values: a comparison of 50,000 items has a million of them, of which few are shown."""

    pair: tuple[ComparedItem, ComparedItem]
    baseline: float | None
    candidate: float | None

    @property
    def difference(self) -> float:
        """Candidate - baseline; of a drift, which has no value of the baseline's, its own."""
        return (self.candidate or 0.0) - (self.baseline or 0.0)


def metric_difference(
    name: str, higher: bool, match: Match, pairs: Pairs, confidence: float, apart: str = ""
) -> Difference:
    """Estimate the difference of one metric of a cell from its baseline.

    Args:
        name: of the metric, a cost, or `drift.NAME`.
        higher: True when higher is better.
        match: the cell and its baseline.
        pairs: their items.
        confidence: of the intervals.
        apart: why numbers of the two sides cannot be compared, or "".
    """
    if name == AUDIT:
        return _of_audit(match, confidence)
    if apart and match.baseline is not None:
        alone = metric_difference(name, higher, replace(match, baseline=None, baseline_sets={}), (), confidence)
        return replace(alone, difference=Mean(0, None, None, None, len(pairs), ((apart, len(pairs)),)))
    if name.startswith(PREFIX):
        return _of_drift(name, higher, match, pairs, confidence)
    return (
        _of_set(name, higher, match) if _is_of_set(name, match) else _of_pairs(name, higher, match, pairs, confidence)
    )


def otherwise_measured(baseline: Ways, candidate: Ways) -> dict[str, str]:
    """Return the metrics that two runs have measured by other versions or with other options, and how they differ."""
    return {
        metric: f"measured otherwise than the baseline's ({_apart(baseline[metric], ours)}): genrun score both alike"
        for metric, ours in candidate.items()
        if metric in baseline and baseline[metric] != ours
    }


def _apart(baseline: frozenset[tuple[int, str]], candidate: frozenset[tuple[int, str]]) -> str:
    # Scoring leaves one way for each metric; several only where another genrun has written the file.
    (version, theirs), (other, ours) = max(baseline), max(candidate)
    if version != other:
        return f"version {other} of the metric, not {version}"
    before, now = json.loads(theirs), json.loads(ours)
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    return (
        ", ".join(f"{name} {_said(now.get(name))}, not {_said(before.get(name))}" for name in names) or "other options"
    )


def _said(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MOST_LETTERS else f"{text[:MOST_LETTERS]}..."


def _of_audit(match: Match, confidence: float) -> Difference:
    # How many of a few items were within is told exactly, and of no baseline.
    numbers = [item.number(AUDIT) for item in match.items if item.is_audited]
    values = [number.value for number in numbers if number.value is not None]
    low, high = statistics.exact_interval(int(sum(values)), len(values), confidence) if values else (None, None)
    return Difference(AUDIT, True, "share", Mean(len(values), _average(values), low, high, *_missing(numbers)))


def has_same_media(baseline: ComparedItem, candidate: ComparedItem) -> bool:
    """Return True when the files of two items are the same byte for byte."""
    one, other = baseline.record, candidate.record
    return one is not None and other is not None and one.sha256 is not None and one.sha256 == other.sha256


def _of_pairs(name: str, higher: bool, match: Match, pairs: Pairs, confidence: float) -> Difference:
    style = style_of(name)
    own = _mean([item.number(name) for item in match.items], confidence, style, bounds_of(name))
    if match.baseline is None or is_reference_only(match.baseline, name):
        return Difference(name, higher, style, own)
    numbers = [(one.number(name), other.number(name)) for one, other in pairs]
    measured = [
        Measured(pair, one.value, other.value)
        for pair, (one, other) in zip(pairs, numbers, strict=True)
        if one.value is not None and other.value is not None
    ]
    missing = [
        Number(None, f"the baseline: {one.reason}") if one.value is None and other.value is not None else other
        for one, other in numbers
    ]
    differences = [each.difference for each in measured]
    wins, ties, losses = _by_prompt(measured, higher)
    return Difference(
        name,
        higher,
        style,
        own,
        baseline=_average([each.baseline or 0.0 for each in measured]),
        candidate=_average([each.candidate or 0.0 for each in measured]),
        difference=_mean_difference(measured, missing, confidence, style),
        effect=statistics.effect_size(differences),
        wins=wins,
        ties=ties,
        losses=losses,
        worst=_worst([each for each in measured if (each.difference < 0 if higher else each.difference > 0)], higher),
    )


def _of_drift(name: str, higher: bool, match: Match, pairs: Pairs, confidence: float) -> Difference:
    # Drift has a value for each pair, and no difference: it is one already.
    style = style_of(name)
    if match.baseline is None:
        nothing = [Number(None, NO_BASELINE) for _ in match.items]
        return Difference(name, higher, style, _mean(nothing, confidence, ""))
    numbers = measure(name, pairs)
    measured = [
        Measured(pair, None, number.value)
        for pair, number in zip(pairs, numbers, strict=True)
        if number.value is not None and not has_same_media(*pair)
    ]
    return Difference(
        name, higher, style, _mean(numbers, confidence, style, bounds_of(name)), worst=_worst(measured, higher)
    )


def _is_of_set(metric: str, match: Match) -> bool:
    """Return True for a metric with a row for the cell or its baseline as a whole, and a value for none of their items."""
    if metric not in match.sets and metric not in match.baseline_sets:
        return False
    rows = (item.scores.get(metric) for item in (*match.items, *(match.baseline or ())))
    return not any(row is not None and row.value is not None for row in rows)


def _of_set(metric: str, higher: bool, match: Match) -> Difference:
    # There are no pairs, so neither an interval nor an effect size.
    own, style = _number_of_set(metric, match.items, match.sets), style_of(metric)
    if match.baseline is None:
        return Difference(metric, higher, style, own)
    theirs = _number_of_set(metric, match.baseline, match.baseline_sets)
    if theirs.value is None or own.value is None:
        lacking = own if own.value is None else theirs
        side = "" if lacking is own else "the baseline: "
        reasons = tuple((f"{side}{reason}", count) for reason, count in lacking.reasons)
        difference = Mean(0, None, None, None, lacking.missing, reasons, is_of_set=True)
    else:
        missing, reasons = max((own.missing, own.reasons), (theirs.missing, theirs.reasons), key=lambda pair: pair[0])
        n, value = min(own.n, theirs.n), own.value - theirs.value
        difference = Mean(n, value, None, None, missing, reasons, is_of_set=True)
    return Difference(metric, higher, style, own, theirs.value, own.value, difference)


def _number_of_set(metric: str, items: Sequence[ComparedItem], rows: Mapping[str, Score]) -> Mean:
    """Return the set's number; items that are not in it count as missing."""
    row = rows.get(metric)
    if row is None or row.value is None:
        reason = "not scored yet: genrun score" if row is None else row.reason or "not scored"
        return Mean(0, None, None, None, len(items), ((reason, len(items)),), is_of_set=True)
    reasons = Counter(reason for item in items if (reason := _left_out(metric, item)))
    missing = reasons.total()
    return Mean(len(items) - missing, row.value, None, None, missing, tuple(reasons.most_common()), is_of_set=True)


def _left_out(metric: str, item: ComparedItem) -> str:
    """Say why an item is not in its set, or ""."""
    if not item.is_done:
        return item.number(metric).reason
    row = item.scores.get(metric.partition(".")[0])
    return row.reason or "not scored" if row is not None and row.value is None else ""


def _pair(measured: Measured) -> Pair:
    baseline, candidate = measured.pair
    return Pair(
        candidate.planned.prompt,
        candidate.planned.seed,
        PairedItem(baseline.planned.id, measured.baseline, baseline.media),
        PairedItem(candidate.planned.id, measured.candidate, candidate.media),
        measured.difference,
    )


def _mean(
    numbers: Sequence[Number], confidence: float, style: str, within: statistics.Interval = statistics.ANY
) -> Mean:
    values = [number.value for number in numbers if number.value is not None]
    share = style == "share" and statistics.are_binary(values)
    interval = statistics.mean_interval(values, confidence, share=share, within=within)
    return Mean(len(values), _average(values), *(interval or (None, None)), *_missing(numbers))


def _mean_difference(pairs: Sequence[Measured], numbers: Sequence[Number], confidence: float, style: str) -> Mean:
    values = [pair.difference for pair in pairs]
    share = style == "share" and statistics.are_binary(
        value for pair in pairs for value in (pair.baseline, pair.candidate)
    )
    interval = statistics.difference_interval(values, confidence, share=share)
    return Mean(len(values), _average(values), *(interval or (None, None)), *_missing(numbers))


def _average(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _missing(numbers: Sequence[Number]) -> tuple[int, tuple[tuple[str, int], ...]]:
    """Count the numbers that are missing, and why, the most frequent reason first."""
    reasons = Counter(number.reason for number in numbers if number.value is None)
    return reasons.total(), tuple(reasons.most_common())


def _by_prompt(pairs: Sequence[Measured], higher: bool) -> tuple[int, int, int]:
    """Count wins, ties and losses of the candidate, by the mean difference of each prompt over its seeds."""
    grouped: dict[tuple[str, str | None, str], list[float]] = {}
    for pair in pairs:
        text, negative, _, own = pair.pair[1].key
        grouped.setdefault((text, negative, own), []).append(pair.difference if higher else -pair.difference)
    sums = [sum(differences) for differences in grouped.values()]
    return sum(total > 0 for total in sums), sum(total == 0 for total in sums), sum(total < 0 for total in sums)


def _worst(pairs: Sequence[Measured], higher: bool) -> tuple[Pair, ...]:
    found = nsmallest(WORST, pairs, key=lambda pair: pair.difference if higher else -pair.difference)
    return tuple(_pair(each) for each in found)


PREFIX = "drift."

Known = dict[str, float]
"""Metric version and the files' hashes -> value."""


def drift_names() -> list[str]:
    """Return every metric that can measure drift, as `drift.NAME`; imports their modules."""
    return [PREFIX + name for name in registry.names() if registry.get(name).compares]


def direction(name: str) -> bool:
    """Return True when a higher value of `drift.NAME` is better."""
    return registry.get(name.removeprefix(PREFIX)).higher_is_better


def measure(name: str, pairs: Sequence[tuple[ComparedItem, ComparedItem]]) -> list[Number]:
    """Measure `drift.NAME` on (baseline, candidate) pairs; a reason for each that cannot be measured.

    Raises:
        StoreError: the candidate's folder cannot be written.
    """
    if not pairs:
        return []
    run = pairs[0][1].run
    metric = _configured(name.removeprefix(PREFIX), run)
    known = _read(run, metric)
    before = len(known)
    numbers = [_measure(metric, baseline, candidate, known) for baseline, candidate in pairs]
    if len(known) > before:
        path = run.scores_path(f"drift/{metric.name}").with_suffix(".json")
        atomic_write(path, json.dumps(known, indent=0, sort_keys=True).encode())
    return numbers


def _configured(name: str, run: RunFolder) -> Metric:
    """Return a metric with the options that a run's job gives it."""
    options = metrics_of(run.job_document()).get(name)
    return configured(registry.get(name), options) if options else registry.get(name)


def _measure(metric: Metric, baseline: ComparedItem, candidate: ComparedItem, known: Known) -> Number:
    for side, item in (("the baseline: ", baseline), ("", candidate)):
        if not item.is_done:
            return Number(None, f"{side}not generated")
        note = unscorable_note(item.record.notes) if item.record is not None and metric.reads == "media" else None
        if note is not None:
            return Number(None, f"{side}not what the model made: {note.message}")
    how = str(metric.version) if not settings_of(metric) else f"{metric.version}:{settings_text(metric)}"
    key = f"{how}:{_sha256(metric, baseline)}:{_sha256(metric, candidate)}"
    if key not in known:
        value = _measured_now(metric, baseline, candidate)
        if isinstance(value, str):
            return Number(None, value)
        known[key] = value
    return Number(known[key])


def _measured_now(metric: Metric, baseline: ComparedItem, candidate: ComparedItem) -> float | str:
    """Measure a pair, or say why that cannot be."""
    for side, item in (("the baseline: ", baseline), ("", candidate)):
        if _is_changed(metric, item):
            return f"{side}its file is not the one that was made: genrun verify"
    try:
        value = float(metric.measure(_sample(candidate), _sample(baseline))[metric.name])
    except UnscoredError as error:
        return str(error).replace("the sequential item", "the baseline")
    except Exception as error:  # a metric of another package may raise anything; the other pairs go on
        return f"{type(error).__name__}: {error}"
    return value if math.isfinite(value) else "not a finite number"


def _sample(item: ComparedItem) -> Sample:
    planned, latents = item.planned, item.record.latents if item.record is not None else None
    return Sample(
        caption=planned.prompt,
        adapter=str(planned.model.get("adapter", "")),
        media=None if item.media is None else item.run.path / item.media,
        latents=None if latents is None else item.run.path / latents,
        num_frames=planned.sampling.get("num_frames"),
    )


def _sha256(metric: Metric, item: ComparedItem) -> str | None:
    if item.record is None:
        return None
    return item.record.latents_sha256 if metric.reads == "latents" else item.record.sha256


def _is_changed(metric: Metric, item: ComparedItem) -> bool:
    """Return True where the file of an item is there, and is another than its record says."""
    recorded, record = _sha256(metric, item), item.record
    path = None if record is None else file_of(item.run.path, record, metric.reads)
    return recorded is not None and path is not None and path.is_file() and sha256_of(path) != recorded


def _read(run: RunFolder, metric: Metric) -> Known:
    try:
        known = json.loads(run.scores_path(f"drift/{metric.name}").with_suffix(".json").read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
