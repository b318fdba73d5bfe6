"""The charts of a bench: error against rounds, rounds against K, fronts over rounds; and as PDF, for papers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genrun.runner.bench.results import TARGETS, Crossing, PointResult
from genrun.runner.compare.formats import as_pdf
from genrun.runner.report.charts import (
    COLOURS,
    MARKERS,
    PLOT_TICKS,
    Guide,
    Mark,
    Plot,
    Scale,
    Series,
    line,
    upright,
    with_twins,
)
from genrun.runner.report.sections.speed import Curve, fronts_plot

if TYPE_CHECKING:
    from genrun.runner.bench.results import BenchFolder


FRONTS_AT = 0.02
"""The error whose nearest cells are shown as fronts."""
LEAST = 0.001
"""Errors below it are drawn on the lower edge: those of exact modes would stretch the scale of those that are compared."""
MARGIN = 1.6
"""Factor by which the scale of errors extends beyond the data, above and below."""

Looks = Mapping[str, tuple[int, int]]
"""Solver -> (index of its colour, index of its marker)."""


def looks_of(solvers: Iterable[str]) -> Looks:
    """Choose the colour and marker of each solver; colours repeat after seven, markers after eight."""
    return {label: (index % COLOURS + 1, index % MARKERS) for index, label in enumerate(dict.fromkeys(solvers))}


def draw_problem(
    results: Sequence[PointResult], found: Sequence[Crossing], targets: Sequence[float] = TARGETS
) -> dict[str, Plot]:
    """Draw one problem, by name; only charts that have something to show.

    `error-kK` for every K, `rounds-TARGET` for every error that is met with several K, `fronts-kK`.
    """
    looks = looks_of(result.cell.solver for result in results)
    charts: dict[str, Plot] = {}
    for workers in sorted({result.cell.workers for result in results if result.samples}):
        cells = [result for result in results if result.cell.workers == workers and result.samples]
        if any(result.rmse > 0 for result in cells):
            charts[f"error-k{workers}"] = _errors_plot(cells, looks, targets)
        charts[f"fronts-k{workers}"] = fronts_plot(_curves(cells, looks))
    for target in targets:
        met = [each for each in found if each.error == target and each.rounds is not None]
        if len({each.workers for each in met}) > 1:
            charts[f"rounds-{target:g}"] = _rounds_plot(met, looks)
    return charts


def _errors_plot(results: Sequence[PointResult], looks: Looks, targets: Sequence[float]) -> Plot:
    """Draw mean rounds across, mean error up on a logarithmic scale: a line per solver, a point per tolerance."""
    errors = [*(result.rmse for result in results if result.rmse > 0), *targets]
    up = Scale(max(min(errors), LEAST) / MARGIN, max(errors) * MARGIN, is_log=True)
    is_cut = any(result.rmse < up.low for result in results)
    across = Scale(0.0, 1.05 * max(result.rounds for result in results))
    series = []
    for label in dict.fromkeys(result.cell.solver for result in results):
        points = sorted((each.rounds, each.rmse) for each in results if each.cell.solver == label)
        marks = [
            Mark(across.at(x), up.down(max(y, up.low)), title=f"{label}: {x:.1f} rounds, RMSE {y:.3g}")
            for x, y in points
        ]
        series.append(_series(label, marks, looks))
    return Plot(
        alt="Latent RMSE against rounds, a line for each solver, a point for each tolerance",
        series=with_twins(series),
        y_ticks=upright([(0.0, f"< {LEAST:g}"), *up.ticks(most=PLOT_TICKS)] if is_cut else up.ticks(most=PLOT_TICKS)),
        x_ticks=tuple(across.ticks(most=PLOT_TICKS)),
        x_title="rounds",
        y_title="latent RMSE to sequential",
        guides=tuple(Guide("target", line([(0.0, up.down(each)), (100.0, up.down(each))])) for each in targets),
    )


def _rounds_plot(found: Sequence[Crossing], looks: Looks) -> Plot:
    """Draw K across, rounds at one error up; a hollow mark is a bound: the whole sweep is better than that error."""
    workers = sorted({each.workers for each in found})
    across = Scale.over(math.log2(count) for count in workers)
    up = Scale(0.0, 1.05 * max(each.rounds or 0.0 for each in found))
    series = []
    for label in dict.fromkeys(each.solver for each in found):
        mine = sorted((each for each in found if each.solver == label), key=lambda each: each.workers)
        marks = [
            Mark(
                across.at(math.log2(each.workers)),
                up.down(each.rounds or 0.0),
                kind="bound" if each.state == "at most" else "",
                title=f"{label}, K = {each.workers}: {each.state} {each.rounds:.1f} rounds",
            )
            for each in mine
        ]
        series.append(_series(label, marks, looks))
    title = f"rounds at latent RMSE {found[0].error:g}, of {found[0].num_steps}"
    return Plot(
        alt=f"{title[:1].upper()}{title[1:]}, against workers K, a line for each solver",
        series=with_twins(series),
        y_ticks=upright(up.ticks(most=PLOT_TICKS)),
        x_ticks=tuple((across.at(math.log2(count)), str(count)) for count in workers),
        x_title="workers K",
        y_title=title,
    )


def _series(label: str, marks: Sequence[Mark], looks: Looks) -> Series:
    colour, marker = looks[label]
    return Series(label, colour, marker, line=line([(mark.x, mark.y) for mark in marks]), marks=tuple(marks))


def _curves(results: Sequence[PointResult], looks: Looks) -> list[Curve]:
    """Return the fronts of each solver's cell whose error is nearest to FRONTS_AT on a logarithmic scale."""
    chosen: dict[str, PointResult] = {}
    for result in results:
        best = chosen.get(result.cell.solver)
        if best is None or _distance(result) < _distance(best):
            chosen[result.cell.solver] = result
    return [
        Curve(label, looks[label][0], result.num_steps, tuple(sample.fronts for sample in result.samples))
        for label, result in chosen.items()
    ]


def _distance(result: PointResult) -> float:
    return abs(math.log(result.rmse / FRONTS_AT)) if result.rmse > 0 else math.inf


SIZE_IN = (3.3, 2.6)
"""A column of a two-column paper."""

FOLDER = "figures"


def write_figures(folder: BenchFolder, results: Sequence[PointResult], found: Sequence[Crossing]) -> list[str]:
    """Write the figures of every problem into `figures/`, and return their names. Raises StoreError."""
    names = []
    for number, problem in enumerate(dict.fromkeys(result.cell.problem for result in results), start=1):
        mine = [result for result in results if result.cell.problem == problem and result.samples]
        met = [each for each in found if each.problem == problem and each.rounds is not None]
        for name, figure in {**_errors(mine), **_rounds(met)}.items():
            # By number: a problem may be called by a path.
            path = f"{FOLDER}/{number}-{name}.pdf"
            folder.write_file(path, as_pdf(figure))
            names.append(path)
    return names


def _errors(results: Sequence[PointResult]) -> dict[str, Any]:
    """Draw mean error against mean rounds for each K: a line for each solver, a point for each tolerance."""
    figures = {}
    for workers in sorted({result.cell.workers for result in results}):
        lines: dict[str, list[tuple[float, float]]] = {}
        for result in results:
            # An error of 0 has no place on a logarithmic scale.
            if result.cell.workers == workers and result.rmse > 0:
                lines.setdefault(result.cell.solver, []).append((result.rounds, result.rmse))
        if lines:
            figures[f"error-k{workers}"] = _figure(lines, "rounds", "latent RMSE to sequential", is_log=True)
    return figures


def _rounds(found: Sequence[Crossing]) -> dict[str, Any]:
    """Draw rounds against K at each error that was met with several K: a line for each solver."""
    figures = {}
    for error in sorted({each.error for each in found}):
        lines: dict[str, list[tuple[float, float]]] = {}
        for each in found:
            if each.error == error:
                lines.setdefault(each.solver, []).append((each.workers, each.rounds or 0.0))
        if max(map(len, lines.values()), default=0) > 1:
            figures[f"rounds-{error:g}"] = _figure(lines, "workers K", f"rounds at latent RMSE {error:g}", is_log=False)
    return figures


def _figure(lines: Mapping[str, Sequence[tuple[float, float]]], across: str, up: str, *, is_log: bool) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_IN, layout="constrained")
    place = figure.subplots()
    markers = "osD^vP*X"
    for index, (label, points) in enumerate(lines.items()):
        x, y = zip(*sorted(points), strict=True)
        name = label.replace("$", r"\$")
        place.plot(x, y, marker=markers[index % len(markers)], markersize=4, linewidth=1.2, label=name)
    if is_log:
        place.set_yscale("log")
    place.set_xlabel(across, fontsize=8)
    place.set_ylabel(up, fontsize=8)
    place.tick_params(labelsize=7)
    place.grid(visible=True, linewidth=0.3)
    place.legend(fontsize=6)
    return figure
