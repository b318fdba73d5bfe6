"""Metrics of whole sets of items, such as a Fréchet distance or VBench's totals: one number for each cell, no interval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from genrun.runner.compare.load import Entry, style_of
from genrun.runner.compare.pairs import Match
from genrun.runner.compare.results import Difference, Mean
from genrun.runner.store.records import Score


def is_of_set(metric: str, match: Match) -> bool:
    """Whether a metric has a row for the cell or its baseline as a whole, and a value for none of their items."""
    if metric not in match.sets and metric not in match.baseline_sets:
        return False
    rows = (entry.scores.get(metric) for entry in (*match.entries, *(match.baseline or ())))
    return not any(row is not None and row.value is not None for row in rows)


def difference(metric: str, higher: bool, match: Match) -> Difference:
    """A set's number beside its baseline's; there are no pairs, so neither an interval nor an effect size.

    Args:
        metric: its name.
        higher: whether higher is better.
        match: the cell and its baseline.
    """
    own = _number(metric, match.entries, match.sets)
    style = style_of(metric)
    if match.baseline is None:
        return Difference(metric, higher, style, own)
    theirs = _number(metric, match.baseline, match.baseline_sets)
    return Difference(metric, higher, style, own, theirs.value, own.value, _between(theirs, own))


def _between(theirs: Mean, own: Mean) -> Mean:
    if theirs.value is None or own.value is None:
        lacking = own if own.value is None else theirs
        side = "" if lacking is own else "the baseline: "
        reasons = tuple((f"{side}{reason}", count) for reason, count in lacking.reasons)
        return Mean(0, None, None, None, lacking.missing, reasons, is_of_set=True)
    missing, reasons = max((own.missing, own.reasons), (theirs.missing, theirs.reasons), key=lambda pair: pair[0])
    n = min(own.n, theirs.n)
    return Mean(n, own.value - theirs.value, None, None, missing, reasons, is_of_set=True)


def _number(metric: str, entries: Sequence[Entry], rows: Mapping[str, Score]) -> Mean:
    """The set's number; items that are not in it count as missing."""
    row = rows.get(metric)
    if row is None or row.value is None:
        reason = "not scored yet: genrun score" if row is None else row.reason or "not scored"
        return Mean(0, None, None, None, len(entries), ((reason, len(entries)),), is_of_set=True)
    reasons = Counter(reason for entry in entries if (reason := _left_out(metric, entry)))
    missing = reasons.total()
    return Mean(len(entries) - missing, row.value, None, None, missing, tuple(reasons.most_common()), is_of_set=True)


def _left_out(metric: str, entry: Entry) -> str:
    """Why an item is not in its set, or ""."""
    if not entry.is_done:
        return entry.number(metric).reason
    row = entry.scores.get(metric.partition(".")[0])
    return row.reason or "not scored" if row is not None and row.value is None else ""
