"""The pictures of a bench: error against rounds, rounds against K, fronts over rounds; light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from genrun.runner.bench.results import TARGETS, Crossing, Result
from genrun.runner.bench.sweep import REFERENCE
from genrun.runner.report.canvas import draw, in_both_themes, safe
from genrun.runner.report.clips import colours
from genrun.runner.report.pictures import Curve, paint_fronts
from genrun.runner.report.theme import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = "os^Dv<>Pp*hX"
FRONTS_AT = 0.02
"""The error whose nearest cells are shown as fronts."""
LEAST = 0.001
"""Errors below it are drawn on the lower edge."""
MARGIN = 1.6
"""Of the scale of errors, above and below."""

Looks = Mapping[str, tuple[int, str]]
"""Solver -> (index of its colour, marker)."""


def looks_of(solvers: Iterable[str]) -> Looks:
    """The colour and marker of each solver; colours repeat after seven, markers later."""
    labels = list(dict.fromkeys(solvers))
    chosen = colours({label: label for label in (REFERENCE, *labels)})[1:]
    return {
        label: (colour, MARKERS[i % len(MARKERS)]) for i, (label, colour) in enumerate(zip(labels, chosen, strict=True))
    }


def draw_problem(
    results: Sequence[Result], found: Sequence[Crossing], targets: Sequence[float] = TARGETS
) -> dict[str, bytes]:
    """Draw one problem: file name -> SVG. Only pictures that have something to show.

    `error-kK` for every K, `rounds-TARGET` for every error that is met with several K, `fronts-kK`.
    """
    looks = looks_of(result.cell.solver for result in results)
    pictures: dict[str, bytes] = {}
    for workers in sorted({result.cell.workers for result in results if result.samples}):
        cells = [result for result in results if result.cell.workers == workers and result.samples]
        if any(result.rmse > 0 for result in cells):
            pictures[f"error-k{workers}"] = draw(_errors, cells, looks, targets)
        pictures[f"fronts-k{workers}"] = draw(paint_fronts, _curves(cells, looks))
    for target in targets:
        met = [each for each in found if each.error == target and each.rounds is not None]
        if len({each.workers for each in met}) > 1:
            pictures[f"rounds-{target:g}"] = draw(_rounds, met, looks)
    return in_both_themes(pictures)


def _errors(figure: Figure, theme: Theme, results: Sequence[Result], looks: Looks, targets: Sequence[float]) -> None:
    """Mean rounds across, mean error up on a log scale: one line per solver, one point per tolerance."""
    axes = figure.add_subplot()
    axes.set_xlabel("rounds")
    axes.set_ylabel("latent RMSE to sequential")
    errors = [result.rmse for result in results if result.rmse > 0]
    floor = max(min(*errors, *targets), LEAST) / MARGIN
    axes.set_yscale("log")
    axes.set_ylim(floor, max(*errors, *targets) * MARGIN)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda _value, _position: "")
    for target in targets:
        axes.axhline(target, color=theme.colour(0), lw=1, ls=(0, (2, 3)))
    for label in dict.fromkeys(result.cell.solver for result in results):
        points = sorted((r.rounds, max(r.rmse, floor)) for r in results if r.cell.solver == label)
        colour, marker = looks[label]
        _line(axes, theme, label, points, colour, marker)
    axes.set_xlim(left=0)
    _legend(axes)


def _rounds(figure: Figure, theme: Theme, found: Sequence[Crossing], looks: Looks) -> None:
    """K across, rounds at one error up; a hollow mark is a bound: the whole sweep is better than that error."""
    axes = figure.add_subplot()
    axes.set_xlabel("workers K")
    axes.set_ylabel(f"rounds at latent RMSE {found[0].error:g}, of {found[0].num_steps}")
    workers = sorted({each.workers for each in found})
    axes.set_xticks([math.log2(count) for count in workers], [str(count) for count in workers])
    for label in dict.fromkeys(each.solver for each in found):
        mine = sorted((each for each in found if each.solver == label), key=lambda each: each.workers)
        points = [(math.log2(each.workers), each.rounds or 0.0) for each in mine]
        colour, marker = looks[label]
        _line(axes, theme, label, points, colour, marker)
        bounds = [point for point, each in zip(points, mine, strict=True) if each.state == "at most"]
        if bounds:
            axes.plot(*zip(*bounds, strict=True), marker, color=theme.paper, markersize=3, zorder=4)
    axes.set_ylim(bottom=0)
    _legend(axes)


def _line(
    axes: Axes, theme: Theme, label: str, points: Sequence[tuple[float, float]], colour: int, marker: str
) -> None:
    paint = theme.colour(colour)
    across, up = zip(*points, strict=True)
    axes.plot(across, up, "-", marker=marker, color=paint, lw=1.8, markersize=5.5, label=safe(label), zorder=3)


def _legend(axes: Axes) -> None:
    legend = axes.legend(frameon=False, loc="best", fontsize=9, labelcolor="linecolor", handlelength=1.6)
    for entry in legend.get_texts():
        entry.set_fontweight("bold")
        entry.set_parse_math(False)


def _curves(results: Sequence[Result], looks: Looks) -> list[Curve]:
    """The fronts of each solver's cell whose error is nearest to FRONTS_AT on a log scale."""
    chosen: dict[str, Result] = {}
    for result in results:
        best = chosen.get(result.cell.solver)
        if best is None or _distance(result) < _distance(best):
            chosen[result.cell.solver] = result
    return [
        Curve(label, looks[label][0], result.num_steps, tuple(sample.fronts for sample in result.samples))
        for label, result in chosen.items()
    ]


def _distance(result: Result) -> float:
    return abs(math.log(result.rmse / FRONTS_AT)) if result.rmse > 0 else math.inf
