"""The report's pictures, for light and for dark pages: SVG, transparent, text as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from genrun.runner.report.canvas import draw, in_both_themes, place_labels, safe
from genrun.runner.report.theme import Theme
from genrun.runner.score.summary import Group
from genrun.runner.store.records import Record, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ERROR_METRIC = "latent_rmse"


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


def draw_all(
    groups: Sequence[Group], colours: Sequence[int], records: Mapping[str, Record], scores: Sequence[Score]
) -> dict[str, bytes]:
    """Return the pictures that have something to show: file name -> SVG.

    `speed-{theme}.svg` needs latent RMSE and rounds, `fronts-{theme}.svg` needs fronts of a parallel solver.

    Args:
        groups: the summary.
        colours: index of each group's colour.
        records: by item id.
        scores: rows of any metrics.
    """
    errors = {
        score.item_id: score.value for score in scores if score.metric == ERROR_METRIC and score.value is not None
    }
    painted = list(zip(groups, colours, strict=True))
    curves = _curves(painted, records)
    pictures: dict[str, bytes] = {}
    if any(ERROR_METRIC in group.metrics and group.speedup for group in groups):
        pictures["speed"] = draw(_speed, painted, records, errors)
    if curves:
        pictures["fronts"] = draw(paint_fronts, curves)
    return in_both_themes(pictures)


def _speed(
    figure: Figure,
    theme: Theme,
    groups: Sequence[tuple[Group, int]],
    records: Mapping[str, Record],
    errors: Mapping[str, float],
) -> None:
    """Speedup across, error up: one dot per item, one disc per group, the sequential sampler at (1, 0)."""
    axes = figure.add_subplot()
    axes.set_xlabel("speedup in model calls, N / rounds")
    axes.set_ylabel("latent RMSE to sequential")
    positive = [error for error in errors.values() if error > 0]
    floor = _error_axis(axes, positive)
    axes.plot([1], [floor], "D", color=theme.colour(0), markersize=7, clip_on=False, zorder=4)
    words = [("sequential", theme.colour(0), 1.0, floor)]
    for group, colour in groups:
        error, speed = group.metrics.get(ERROR_METRIC), group.speedup
        if error is None or speed is None:
            continue
        dots = _dots(group, records, errors, floor)
        paint = theme.colour(colour)
        axes.scatter(*dots, s=11, color=paint, alpha=0.3, linewidths=0, zorder=2)
        mean = max(error.mean, floor)
        if error.low is not None and error.high is not None:
            axes.vlines(speed.mean, max(error.low, floor), max(error.high, floor), color=paint, lw=2, zorder=3)
        axes.plot(
            [speed.mean], [mean], "o", color=paint, markersize=9, mec=theme.paper, mew=1.4, zorder=4, clip_on=False
        )
        words.append((group.label, paint, speed.mean, mean))
    axes.set_xlim(left=min(0.9, axes.get_xlim()[0]), right=axes.get_xlim()[1] * 1.12)
    place_labels(axes, words)


def _error_axis(axes: Axes, positive: Sequence[float]) -> float:
    """Choose the scale of the error; return the height at which an error of exactly 0 is drawn."""
    if not positive:
        axes.set_ylim(-0.02, 1)
        return 0.0
    if max(positive) / min(positive) < 10:
        axes.set_ylim(0, 1.12 * max(positive))
        return 0.0
    floor = min(positive) / 3
    axes.set_yscale("log")
    axes.set_ylim(floor, 2 * max(positive))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda _value, _position: "")
    axes.annotate(
        "0",
        (0, 0),
        xycoords="axes fraction",
        xytext=(-6, -3),
        textcoords="offset points",
        ha="right",
        color=axes.yaxis.label.get_color(),
    )
    return floor


def _dots(
    group: Group, records: Mapping[str, Record], errors: Mapping[str, float], floor: float
) -> tuple[list[float], list[float]]:
    speeds: list[float] = []
    heights: list[float] = []
    for item_id in group.item_ids:
        record = records.get(item_id)
        if record is not None and record.sampler is not None and item_id in errors:
            speeds.append(record.sampler.speedup)
            heights.append(max(errors[item_id], floor))
    return speeds, heights


def _curves(groups: Sequence[tuple[Group, int]], records: Mapping[str, Record]) -> list[Curve]:
    found: list[Curve] = []
    for group, colour in groups:
        held = (records[item_id].sampler for item_id in group.item_ids if item_id in records)
        stats = [stat for stat in held if stat is not None and stat.fronts]
        for num_steps in sorted({stat.num_steps for stat in stats}):
            if not group.is_reference:
                fronts = tuple(stat.fronts for stat in stats if stat.num_steps == num_steps)
                found.append(Curve(group.label, colour, num_steps, fronts))
    return found


def paint_fronts(figure: Figure, theme: Theme, curves: Sequence[Curve]) -> None:
    """Mean front of each group in per cent of N over rounds in per cent of N; the band holds all items."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    axes = figure.add_subplot()
    steps = {curve.num_steps for curve in curves}
    whole = next(iter(steps)) if len(steps) == 1 else None
    unit = whole or 100
    axes.plot([0, unit], [0, unit], "--", color=theme.colour(0), lw=1.4)
    axes.annotate(
        "sequential",
        (0.8 * unit, 0.8 * unit),
        xytext=(7, -7),
        textcoords="offset points",
        color=theme.colour(0),
        fontweight="bold",
        va="top",
    )
    for curve in curves:
        longest = max(len(front) for front in curve.fronts)
        table = np.full((len(curve.fronts), longest + 1), float(curve.num_steps))
        table[:, 0] = 0
        for row, front in zip(table, curve.fronts, strict=True):
            row[1 : len(front) + 1] = front
        scale = unit / curve.num_steps
        rounds = np.arange(longest + 1) * scale
        paint = theme.colour(curve.colour)
        axes.fill_between(
            rounds, table.min(axis=0) * scale, table.max(axis=0) * scale, color=paint, alpha=0.15, linewidth=0
        )
        axes.plot(
            rounds,
            table.mean(axis=0) * scale,
            "-",
            color=paint,
            lw=2,
            marker="o",
            markersize=3.2,
            label=safe(curve.label),
        )
    axes.set_xlim(0, unit)
    axes.set_ylim(0, 1.03 * unit)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("rounds" if whole else "rounds, in % of the sequential steps")
    axes.set_ylabel(f"final states, of {whole}" if whole else "final states, in %")
    legend = axes.legend(frameon=False, loc="lower right", fontsize=10, labelcolor="linecolor", handlelength=1.4)
    for entry in legend.get_texts():
        entry.set_fontweight("bold")
        entry.set_parse_math(False)
