"""Speed: what each solver costs in accuracy, and how fast its states become final."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from genrun.runner import numbers
from genrun.runner.report import charts
from genrun.runner.report.charts import PLOT_TICKS, Guide, Mark, Plot, Scale, Series
from genrun.runner.score.summary import Group
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
