"""Outputs of a bench: tables as rows, CSV, JSON and LaTeX, and its page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from genrun.runner import numbers
from genrun.runner.bench.charts import FRONTS_AT, LEAST, draw_problem, looks_of
from genrun.runner.bench.results import TARGETS, BenchFolder, Crossing, PointResult, crossings
from genrun.runner.report.charts import Plot
from genrun.runner.report.render import environment, policy, stylesheet
from genrun.runner.report.sections.environment import flatten
from genrun.runner.report.sections.verdict import Fact
from genrun.version import __version__

RESULT_COLUMNS = (
    "problem",
    "solver",
    "workers",
    "tolerance",
    "samples",
    "steps",
    "rounds",
    "nfe",
    "speedup",
    "rmse_mean",
    "rmse_median",
    "rmse_max",
    "worst_block",
    "skipped",
    "blocks",
    "saved",
    "rmse_added",
    "round_s",
    "round_ratio",
    "error",
)
CACHE_COLUMNS = ("problem", "solver", "K", "tolerance", "rounds", "NFE", "blocks", "saved", "RMSE", "added")
PARETO_COLUMNS = ("problem", "solver", "workers", "error", "rounds", "speedup", "state")


def write_tables(folder: BenchFolder, settings: Mapping[str, Any], results: Sequence[PointResult]) -> None:
    """Write results.csv, pareto.csv and results.json. Raises StoreError."""
    found = crossings(results)
    folder.write_file("results.csv", as_csv(RESULT_COLUMNS, result_rows(results)))
    folder.write_file("pareto.csv", as_csv(PARETO_COLUMNS, map(pareto_row, found)))
    folder.write_file("results.json", as_json(settings, results, found))


def write_latex(folder: BenchFolder, samples: int, results: Sequence[PointResult]) -> None:
    """Write pareto.tex: the rounds of each solver at equal error, with a column for each K. Raises StoreError."""
    columns, rows = grid_rows(crossings(results))
    caption = (
        f"Rounds, and N over rounds, at equal mean latent RMSE to the sequential sampler; {samples} samples a cell."
    )
    text = numbers.table(columns, rows, right=columns[3:], caption=caption)
    folder.write_file("pareto.tex", text.encode("utf-8", "backslashreplace"))


def result_row(result: PointResult) -> dict[str, Any]:
    """Return one cell by the names of RESULT_COLUMNS; None where there is no number."""
    cell = result.cell
    row: dict[str, Any] = dict.fromkeys(RESULT_COLUMNS)
    row |= {"problem": cell.problem, "solver": cell.solver, "workers": cell.workers, "tolerance": cell.tolerance}
    row |= {"samples": len(result.samples), "steps": result.num_steps, "error": result.error or None}
    if result.samples:
        row |= {"rounds": result.rounds, "nfe": result.nfe, "speedup": result.speedup, "skipped": result.skipped}
        row |= {"rmse_mean": result.rmse, "rmse_median": result.rmse_median, "rmse_max": result.rmse_max}
        row |= {"worst_block": result.worst_block, "round_ratio": result.round_ratio}
        row["blocks"] = result.blocks or None
        row["round_s"] = result.elapsed_s / result.calls if result.calls else None
    return row


def result_rows(results: Sequence[PointResult]) -> list[dict[str, Any]]:
    """Return all cells, those with a cache compared with the same cell without one."""
    plain = {_without_cache(result): result for result in results if not result.cell.cache and result.samples}
    rows = []
    for result in results:
        row = result_row(result)
        if result.cell.cache and result.samples and result.blocks:
            same = plain.get(_without_cache(result))
            blocks = same.blocks if same is not None else _sequential_blocks(result, results)
            row["saved"] = blocks / result.blocks if blocks else None
            row["rmse_added"] = result.rmse - (0.0 if same is None else same.rmse)
        rows.append(row)
    return rows


def _sequential_blocks(result: PointResult, results: Sequence[PointResult]) -> float | None:
    """Return the blocks of the sequential sampler, which is not among the cells: N times those of an evaluation."""
    for other in results:
        if other.samples and not other.cell.cache and other.cell.problem == result.cell.problem:
            return other.blocks / other.nfe * result.num_steps
    return None


def cache_rows(results: Sequence[PointResult]) -> list[list[str]]:
    """Return solver x cache by CACHE_COLUMNS, as ROPA's Table 3 does: what a cache saves, and the error that it adds."""
    return [_cache_row(row) for row in result_rows(results)]


def _cache_row(row: Mapping[str, Any]) -> list[str]:
    if row["error"]:
        start = [row["problem"], row["solver"], str(row["workers"]), "refused"]
        return start + [""] * (len(CACHE_COLUMNS) - len(start))
    tolerance = "" if row["tolerance"] is None else f"{row['tolerance']:g}"
    cells = [row["problem"], row["solver"], str(row["workers"]), tolerance, f"{row['rounds']:.1f}", f"{row['nfe']:.1f}"]
    saved = "" if row["saved"] is None else f"{row['saved']:.2f}x"
    added = "" if row["rmse_added"] is None else f"{row['rmse_added']:+.4f}"
    return [*cells, f"{row['blocks'] or 0:.0f}", saved, f"{row['rmse_mean']:.4f}", added]


def _without_cache(result: PointResult) -> tuple[str, str]:
    return result.cell.problem, json.dumps([result.cell.kind, result.cell.options], sort_keys=True)


def pareto_row(crossing: Crossing) -> dict[str, Any]:
    """Return one crossing by the names of PARETO_COLUMNS."""
    return {name: getattr(crossing, name) for name in PARETO_COLUMNS}


def grid_rows(found: Sequence[Crossing]) -> tuple[list[str], list[list[str]]]:
    """Lay the crossings out as text: headings, and a row per problem, error and solver with a cell per K."""
    problems = list(dict.fromkeys(each.problem for each in found))
    workers = sorted({each.workers for each in found})
    rows: dict[tuple[str, float, str], dict[int, Crossing]] = {}
    for each in sorted(found, key=lambda each: (problems.index(each.problem), each.error)):
        rows.setdefault((each.problem, each.error, each.solver), {})[each.workers] = each
    return ["problem", "RMSE", "solver", *(f"K={count}" for count in workers)], [
        [problem, f"{error:g}", solver, *(_grid_cell(by_k.get(count)) for count in workers)]
        for (problem, error, solver), by_k in rows.items()
    ]


def _grid_cell(crossing: Crossing | None) -> str:
    if crossing is None:
        return ""
    if crossing.rounds is None:
        return "not reached"
    sign = "<= " if crossing.state == "at most" else ""
    return f"{sign}{crossing.rounds:.1f} ({crossing.speedup:.2f}x)"


def as_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Write RFC 4180 text, UTF-8; an empty cell where there is no number."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_json(settings: Mapping[str, Any], results: Sequence[PointResult], found: Iterable[Crossing]) -> bytes:
    """Write everything that was measured, every sample included."""
    whole = {
        "settings": settings,
        "pareto": [pareto_row(crossing) for crossing in found],
        "cells": [
            {
                **row,
                "options": result.cell.options,
                "code": result.code,
                "by_sample": [asdict(sample) for sample in result.samples],
            }
            for row, result in zip(result_rows(results), results, strict=True)
        ],
    }
    return json.dumps(whole, allow_nan=False).encode("ascii")


PACKAGE = "genrun.runner.bench"
TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class About:
    """The facts of a bench that its page shows besides the results.

    Attributes:
        title: of the page.
        command: the command line that made it.
        problems: name -> one line, in the order of the page.
        samples: one line each, such as a prompt and its seed.
        settings: what decides the numbers.
        machine: versions, host and devices.
    """

    title: str
    command: str
    problems: Mapping[str, str]
    samples: Sequence[str]
    settings: Mapping[str, Any]
    machine: Mapping[str, Any]


@dataclass(frozen=True)
class GridEntry:
    """A number in a grid: text, its note, and whether it is the best of its column."""

    text: str
    note: str = ""
    best: bool = False


@dataclass(frozen=True)
class Grid:
    """Rounds at one error: a row per solver, a column per K.

    Attributes:
        error: the target.
        workers: the columns.
        rows: label -> entries.
    """

    error: float
    workers: tuple[int, ...]
    rows: Mapping[str, tuple[GridEntry, ...]]


@dataclass(frozen=True)
class Section:
    """A problem's section of the page."""

    name: str
    title: str
    sentence: str
    grids: tuple[Grid, ...]
    charts: tuple[tuple[Plot, str], ...]
    results: tuple[PointResult, ...]
    refused: tuple[PointResult, ...]
    colours: Mapping[str, int]


def write_page(folder: BenchFolder, about: About, results: Sequence[PointResult]) -> str:
    """Write the page into the folder; return the path of index.html. Raises StoreError."""
    found = crossings(results)
    sections = []
    for name, title in about.problems.items():
        mine = [result for result in results if result.cell.problem == name]
        theirs = [crossing for crossing in found if crossing.problem == name]
        sections.append(section_of(name, title, mine, theirs, draw_problem(mine, theirs)))
    html = render(about, sections, results)
    return str(folder.write_file("index.html", html.encode("utf-8", "xmlcharrefreplace")).absolute())


def render(about: About, sections: Sequence[Section], results: Sequence[PointResult]) -> str:
    """Fill the template."""
    from markupsafe import Markup

    style = stylesheet("page", "charts")
    return (
        environment(PACKAGE)
        .get_template(TEMPLATE)
        .render(
            about=about,
            sections=sections,
            facts=_facts(results),
            settings=[(name, value) for name, value in flatten(about.settings) if value],
            machine=[(name.removeprefix("versions."), value) for name, value in flatten(about.machine) if value],
            targets=TARGETS,
            fronts_at=FRONTS_AT,
            write=numbers,
            version=__version__,
            style=Markup(style),
            policy=policy(style),
        )
    )


def section_of(
    name: str, title: str, results: Sequence[PointResult], found: Sequence[Crossing], charts: Mapping[str, Plot]
) -> Section:
    """Lay one problem out."""
    looks = looks_of(result.cell.solver for result in results)
    return Section(
        name,
        title,
        best_sentence(found),
        tuple(grid_of(found, target) for target in TARGETS),
        tuple((charts[each], caption(each)) for each in sorted(charts, key=_order)),
        tuple(result for result in results if result.samples),
        tuple(result for result in results if not result.samples),
        {label: colour for label, (colour, _) in looks.items()},
    )


def grid_of(found: Sequence[Crossing], target: float) -> Grid:
    """Return the rounds at one error, the fewest of each K marked."""
    mine = [each for each in found if each.error == target]
    workers = tuple(sorted({each.workers for each in mine}))
    best = {k: min((e.rounds for e in mine if e.workers == k and e.rounds), default=None) for k in workers}
    rows: dict[str, tuple[GridEntry, ...]] = {}
    for label in dict.fromkeys(each.solver for each in mine):
        by_k = {each.workers: each for each in mine if each.solver == label}
        rows[label] = tuple(entry(by_k.get(k), best[k]) for k in workers)
    return Grid(target, workers, rows)


def entry(crossing: Crossing | None, best: float | None = None) -> GridEntry:
    """Write rounds, and below them the speedup; a dash where the sweep does not come down to the error."""
    if crossing is None:
        return GridEntry("")
    if crossing.rounds is None or crossing.speedup is None:
        return GridEntry(numbers.ABSENT, "not reached")
    sign = "≤ " if crossing.state == "at most" else ""
    return GridEntry(f"{sign}{crossing.rounds:.1f}", numbers.times(crossing.speedup), crossing.rounds == best)


def best_sentence(found: Sequence[Crossing]) -> str:
    """Name who needs the fewest rounds with the most workers, at the middle error or the nearest that anybody meets."""
    for target in (TARGETS[1], TARGETS[2], TARGETS[0]):
        met = [each for each in found if each.error == target and each.rounds is not None]
        if met:
            most = max(each.workers for each in met)
            return f"At latent RMSE {target:g} and K = {most}, {_ranking([e for e in met if e.workers == most])}."
    return "No solver came down to the errors of the table."


def _ranking(met: Sequence[Crossing]) -> str:
    """Name the first, all of them when several are level, and the next."""
    by_rounds: dict[str, list[Crossing]] = {}
    for each in sorted(met, key=lambda each: each.rounds or 0.0):
        by_rounds.setdefault(f"{each.rounds:.1f}", []).append(each)
    (rounds, first), *others = by_rounds.items()
    *names, last = [each.solver for each in first]
    who = f"{', '.join(names)} and {last} take" if names else f"{last} takes"
    bound = "at most " if any(each.state == "at most" for each in first) else ""
    then = f", then {others[0][1][0].solver} with {others[0][0]}" if others else ""
    return f"{who} the fewest rounds: {bound}{rounds} of {first[0].num_steps}{then}"


def caption(chart: str) -> str:
    """Return what a chart shows, by its name."""
    kind, _, of = chart.partition("-")
    if kind == "error":
        edge = f"The lower edge holds errors below {LEAST:g}."
        return (
            f"Error against rounds, K = {of.removeprefix('k')}. One point per tolerance; left and low is better. {edge}"
        )
    if kind == "rounds":
        return f"Rounds against K at a latent RMSE of {of}. A hollow mark is a bound from above."
    k = of.removeprefix("k")
    return f"Fronts, K = {k}: final states after each round, at the tolerance whose error is nearest to {FRONTS_AT:g}."


def _order(chart: str) -> tuple[int, float]:
    kind, _, of = chart.partition("-")
    return ("rounds", "error", "fronts").index(kind), float(of.removeprefix("k"))


def _per_cell(measured: Sequence[PointResult]) -> str:
    counts = sorted({len(result.samples) for result in measured}) or [0]
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"


def _facts(results: Sequence[PointResult]) -> list[Fact]:
    measured = [result for result in results if result.samples]
    samples = sum(len(result.samples) for result in measured)
    facts = [
        Fact(str(len({result.cell.solver for result in results})), "solvers"),
        Fact(f"{len(measured):,}", "cells: solver, K and tolerance"),
        Fact(
            _per_cell(measured),
            f"samples a cell, each compared with the sequential one of its seed; {samples:,} in all",
        ),
    ]
    refused = len(results) - len(measured)
    return [*facts, Fact(f"{refused:,}", "cells refused or failed")] if refused else facts
