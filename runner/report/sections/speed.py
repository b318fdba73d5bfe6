"""Speed of each solver: rounds and evaluations, and what an item took here, and the items together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from genrun.runner import numbers
from genrun.runner.report import charts
from genrun.runner.report.charts import PLOT_TICKS, Guide, Mark, Plot, Scale, Series
from genrun.runner.score.summary import Group, is_solver_axis
from genrun.runner.statistics import COUNTS, Estimate, estimate
from genrun.runner.store.records import Record, Score

ERROR_METRIC = "latent_rmse"
DIAMOND = 3
"""Marker of the sequential sampler, to which errors and speedups are relative."""

WIDE_RANGE = 10.0
"""Errors further apart than this factor are drawn on a logarithmic scale: on a linear one the small ones would coincide."""

ZERO = "The lower edge is 0, below a gap: a logarithmic scale does not come down to it."


@dataclass(frozen=True)
class Curve:
    """The fronts of one group's items.

    Attributes:
        label: of the group.
        colour: index of its colour.
        num_steps: N.
        fronts: one sequence per item, the front after each round.
    """

    label: str
    colour: int
    num_steps: int
    fronts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class SpeedSection:
    """Charts; None for one with nothing to show.

    Attributes:
        errors: speedup against error; needs latent RMSE of items that were sampled in parallel.
        fronts: needs fronts of a parallel solver.
    """

    errors: Plot | None = None
    fronts: Plot | None = None


def collect_speed(
    groups: Sequence[tuple[Group, int]], records: Mapping[str, Record], scores: Iterable[Score]
) -> SpeedSection:
    """Draw the charts of a run.

    Args:
        groups: the summary, each with the index of its colour.
        records: by item id.
        scores: rows of any metrics.
    """
    errors = {
        score.item_id: score.value for score in scores if score.metric == ERROR_METRIC and score.value is not None
    }
    curves = _curves(groups, records)
    has_errors = any(ERROR_METRIC in group.metrics and group.speedup for group, _ in groups)
    return SpeedSection(
        errors=_errors_plot(groups, records, errors) if has_errors else None,
        fronts=fronts_plot(curves) if curves else None,
    )


def _errors_plot(
    groups: Sequence[tuple[Group, int]], records: Mapping[str, Record], errors: Mapping[str, float]
) -> Plot:
    """Draw speedup across and error up: a dot per item, a disc per group, the sequential sampler at (1, 0)."""
    up, zero = _error_scale([error for error in errors.values() if error > 0])
    shown = [
        (group, colour, group.speedup, error)
        for group, colour in groups
        if group.speedup is not None and (error := group.metrics.get(ERROR_METRIC)) is not None
    ]
    places = {
        group.label: [
            (sampler.speedup, max(errors[item_id], zero))
            for item_id in group.item_ids
            if item_id in errors and item_id in records and (sampler := records[item_id].sampler) is not None
        ]
        for group, *_ in shown
    }
    speeds = [1.0, *(speed.mean for *_, speed, _ in shown), *(x for found in places.values() for x, _ in found)]
    # Room on the right is for the label of the fastest.
    across = Scale(min(0.9, 0.95 * min(speeds)), 1.12 * max(1.1, *speeds))
    series = [
        Series(
            "sequential", 0, DIAMOND, marks=(Mark(across.at(1), up.down(zero), title="sequential"),), value="1.00×, 0"
        )
    ]
    for group, colour, speed, error in shown:
        interval = numbers.interval(error.low, error.high, "number")
        value = f"{numbers.times(speed.mean)}, {numbers.number(error.mean)}{' ' + interval if interval else ''}"
        ends = None if error.low is None or error.high is None else (error.high, error.low)
        mark = Mark(
            across.at(speed.mean),
            up.down(max(error.mean, zero)),
            kind="mean",
            title=f"{group.label}: {value}",
            range=None if ends is None else (up.down(max(ends[0], zero)), up.down(max(ends[1], zero))),
        )
        dots = tuple((across.at(x), up.down(y)) for x, y in places[group.label])
        series.append(Series(group.label, colour, marks=(mark,), dots=dots, value=value))
    shown_series = charts.with_twins(series)
    ticks = up.ticks(most=PLOT_TICKS)
    return Plot(
        alt="Speedup in model calls against latent RMSE, one dot per item and one disc per solver",
        series=shown_series,
        y_ticks=charts.upright([(0.0, "0"), *ticks] if up.is_log else ticks),
        x_ticks=tuple(across.ticks(most=PLOT_TICKS)),
        x_title="speedup in model calls, N / rounds",
        y_title="latent RMSE to sequential",
        labels=charts.label_marks(shown_series),
        note=ZERO if up.is_log else "",
    )


def _error_scale(positive: Sequence[float]) -> tuple[Scale, float]:
    """Choose the scale of the error; return it with the height at which an error of exactly 0 is drawn."""
    if not positive:
        return Scale(0.0, 1.0), 0.0
    if max(positive) / min(positive) < WIDE_RANGE:
        return Scale(0.0, 1.12 * max(positive)), 0.0
    # A logarithmic scale has no 0: it stands on the lower edge, well below the smallest error.
    scale = Scale(min(positive) / 3, 2 * max(positive), is_log=True)
    return scale, scale.low


def _curves(groups: Sequence[tuple[Group, int]], records: Mapping[str, Record]) -> list[Curve]:
    found: list[Curve] = []
    for group, colour in groups:
        if group.is_reference:
            continue
        held = (records[item_id].sampler for item_id in group.item_ids if item_id in records)
        stats = [stat for stat in held if stat is not None and stat.fronts]
        for num_steps in sorted({stat.num_steps for stat in stats}):
            fronts = tuple(stat.fronts for stat in stats if stat.num_steps == num_steps)
            found.append(Curve(group.label, colour, num_steps, fronts))
    return found


def fronts_plot(curves: Sequence[Curve]) -> Plot:
    """Draw final states over rounds: the mean of each group, and a band that holds all its items.

    Both are in per cent of N where groups have different N.
    """
    import numpy as np

    steps = {curve.num_steps for curve in curves}
    whole = next(iter(steps)) if len(steps) == 1 else None
    unit = float(whole or 100)
    across, up = Scale(0.0, unit), Scale(0.0, 1.03 * unit)
    series = []
    for curve in curves:
        longest = max(len(front) for front in curve.fronts)
        table = np.full((len(curve.fronts), longest + 1), float(curve.num_steps))
        table[:, 0] = 0
        for row, front in zip(table, curve.fronts, strict=True):
            row[1 : len(front) + 1] = front
        scale = unit / curve.num_steps
        low, mean, high = (
            [(across.at(i * scale), up.down(float(value) * scale)) for i, value in enumerate(values)]
            for values in (table.min(axis=0), table.mean(axis=0), table.max(axis=0))
        )
        rounds = sum(len(front) for front in curve.fronts) / len(curve.fronts)
        series.append(
            Series(
                curve.label,
                curve.colour,
                line=charts.line(mean),
                band=charts.band(low, high),
                dots=tuple(mean),
                value=f"{numbers.count(rounds)} of {curve.num_steps} rounds",
            )
        )
    diagonal = [(0.0, 100.0), (100.0, up.down(unit))]
    return Plot(
        alt="Number of final states after each round, per solver, against the sequential diagonal",
        series=charts.with_twins(series),
        y_ticks=charts.upright(up.ticks(most=PLOT_TICKS, whole=True)),
        x_ticks=tuple(across.ticks(most=PLOT_TICKS, whole=True)),
        x_title="rounds" if whole else "rounds, in % of the sequential steps",
        y_title=f"final states, of {whole}" if whole else "final states, in %",
        guides=(Guide("sequential", charts.line(diagonal)),),
        labels=(charts.Label("sequential", 0, 80.0, up.down(0.8 * unit), 8, 16, "start"),),
    )


LONGEST_PAUSE_S = 60.0
"""Between two items: loading a model takes as long. What is longer is time in which the run stood still."""

ALIKE = 1.05
"""Ratio up to which two times are told as the same: clocks and neighbours on a machine vary by as much."""

SLOWER_HERE, ALIKE_HERE = "Not faster here.", "As fast here."
MOST_TOLD = 4
"""Solvers in a sentence; the table has the others."""


@dataclass(frozen=True)
class Seconds:
    """Times of a run.

    Attributes:
        by_group: label of a group -> seconds an item, mean over its items.
        sentence: whether solvers were faster here than the sequential sampler, and by how much; "" when that was not
            measured.
        answer: the same in two words.
        summed_s: seconds of all items together.
        elapsed_s: seconds in which at least one item was in work; 0 when no record says when it ended.
    """

    by_group: Mapping[str, Estimate] = field(default_factory=dict)
    sentence: str = ""
    answer: str = ""
    summed_s: float = 0.0
    elapsed_s: float = 0.0

    @property
    def totals(self) -> str:
        """Both sums in words."""
        return totals(self.summed_s, self.elapsed_s)


def collect_seconds(groups: Sequence[Group], records: Mapping[str, Record]) -> Seconds:
    """Return the times of a run.

    Args:
        groups: the summary.
        records: by item id.
    """
    by_group: dict[str, Estimate] = {}
    devices: dict[str, set[str]] = {}
    for group in groups:
        done = [record for item_id in group.item_ids if (record := records.get(item_id)) and record.status == "done"]
        found = estimate([record.elapsed_s for record in done if record.elapsed_s > 0], within=COUNTS)
        if found is not None:
            by_group[group.label] = found
            devices[group.label] = {record.device for record in done}
    answer, sentence = _compared(groups, by_group, devices)
    made = [record for group in groups for item_id in group.item_ids if (record := records.get(item_id)) is not None]
    return Seconds(by_group, sentence, answer, *summed_and_elapsed(made))


def summed_and_elapsed(records: Iterable[Record]) -> tuple[float, float]:
    """Return the seconds of all done items together, and those in which at least one of them was in work.

    Items that were taken over from an earlier run took no time in this one.
    """
    made = [record for record in records if record.status == "done" and record.reused_from is None]
    spans = sorted(span for record in made if (span := _span(record)) is not None)
    elapsed_s, start, end = 0.0, 0.0, 0.0
    for first, last in spans:
        if first > end + LONGEST_PAUSE_S:
            elapsed_s += end - start
            start, end = first, last
        end = max(end, last)
    return sum(record.elapsed_s for record in made), elapsed_s + end - start


def _span(record: Record) -> tuple[float, float] | None:
    try:
        end = datetime.fromisoformat(record.finished_at).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return end - record.elapsed_s, end


def totals(summed_s: float, elapsed_s: float) -> str:
    """Write both sums; the elapsed time only where it is known."""
    elapsed = f"{duration(elapsed_s)} elapsed, " if elapsed_s else ""
    return f"{elapsed}{duration(summed_s)} summed over items"


def duration(seconds: float) -> str:
    """Write seconds as 2:40, or 1:02:40 from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _compared(
    groups: Sequence[Group], by_group: Mapping[str, Estimate], devices: Mapping[str, set[str]]
) -> tuple[str, str]:
    """Return the answer, and the sentence, on every group that has a sequential one beside it."""
    references = {_others(group): group.label for group in groups if group.is_reference and group.label in by_group}
    beside = [
        (group.label, by_group[group.label].mean, references[_others(group)])
        for group in groups
        if not group.is_reference and group.label in by_group and _others(group) in references
    ]
    if not beside:
        return "", ""
    ratios = [by_group[reference].mean / mean for _, mean, reference in beside]
    answer = (
        "Faster here." if max(ratios) > ALIKE else "Not faster here." if max(ratios) < 1 / ALIKE else "As fast here."
    )
    ranked = sorted(zip(ratios, beside, strict=True), key=lambda pair: -pair[0])
    told = []
    for ratio, (label, mean, reference) in ranked[:MOST_TOLD]:
        elsewhere = " on another device" if devices[label] != devices[reference] else ""
        remark = f" ({_ratio(ratio)}{elsewhere})" if elsewhere or answer != ALIKE_HERE else ""
        told.append(f"{numbers.number(mean)} s with {label}{remark}")
    named = {reference for *_, reference in beside}
    start = "An item took "
    if len(named) == 1:
        reference = named.pop()
        start += f"{numbers.number(by_group[reference].mean)} s with {reference}, "
    more = f"; {len(ranked) - MOST_TOLD} more are in the table" if len(ranked) > MOST_TOLD else ""
    return answer, f"{start}{', '.join(told)}{more}."


def _others(group: Group) -> tuple[tuple[str, str], ...]:
    """Return the place of a group on the axes that say what is sampled, not how."""
    return tuple((axis, label) for axis, label in group.axes.items() if not is_solver_axis(axis))


def _ratio(ratio: float) -> str:
    if ratio > ALIKE:
        return f"{ratio:.1f}× faster"
    return f"{1 / ratio:.1f}× slower" if ratio < 1 / ALIKE else "as fast"
