"""The charts of a bench as PDF, for papers: error against rounds, and rounds against K."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genrun.runner.bench.results import Crossing, PointResult
from genrun.runner.compare.figure import as_pdf

if TYPE_CHECKING:
    from genrun.runner.bench.folder import BenchFolder

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
