"""A whole bench: every cell of every subject, told to a display, and written as tables and a page."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from genrun.runner.bench.ask import Asked
from genrun.runner.bench.folder import BenchFolder
from genrun.runner.bench.measure import Measurer
from genrun.runner.bench.outputs import PARETO_COLUMNS, RESULT_COLUMNS, as_csv, as_json, pareto_row, result_rows
from genrun.runner.bench.page import About, write_page
from genrun.runner.bench.pareto import Crossing, crossings
from genrun.runner.bench.results import Result
from genrun.runner.bench.sweep import Cell, Variant, sweep
from genrun.runner.job.registries import Registry
from genrun.runner.progress import Display, Glimpse
from genrun.runner.store import environment


@dataclass(frozen=True)
class Plan:
    """What a bench measures.

    Attributes:
        asked: the subjects, and what decides their numbers.
        variants: the solvers.
        workers: values of K.
        tolerances: sweeps by name of the solver, "" for the others.
    """

    asked: Asked
    variants: Sequence[Variant]
    workers: Sequence[int]
    tolerances: Mapping[str, Sequence[float]]

    def cells(self, problem: str) -> list[Cell]:
        """Every cell of one subject."""
        return list(sweep(problem, self.variants, self.workers, self.tolerances))

    @property
    def total(self) -> int:
        """Number of cells."""
        return sum(len(self.cells(subject.name)) for subject in self.asked.subjects)


@dataclass
class Meter:
    """Tells a display how far the bench is: cells that were there, cells that were measured, the part of one in hand."""

    display: Display
    total: int
    clock: Callable[[], float] = time.monotonic
    done: int = 0
    made: int = 0
    failed: int = 0
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def part(self, fraction: float) -> None:
        """Part of a cell, 0..1, is done."""
        self.display.show(self._glimpse((fraction,)))

    def count(self, result: Result, *, is_new: bool) -> None:
        """A cell is done."""
        self.made += is_new
        self.done += bool(result.samples)
        self.failed += not result.samples
        self.display.show(self._glimpse(()))

    def close(self) -> None:
        """The bench is over, or was cut off."""
        self.display.close(self._glimpse(()))

    def _glimpse(self, in_work: tuple[float, ...]) -> Glimpse:
        return Glimpse(self.total, self.done, self.failed, self.made, in_work, self.clock() - self.started)


def measure(plan: Plan, folder: BenchFolder, solvers: Registry, display: Display) -> list[Result]:
    """Measure what has no record yet; returns every cell of the plan.

    Raises:
        RunError, MixError, StoreError: as `Measurer.result`.
    """
    meter, results = Meter(display, plan.total), []
    try:
        for subject in plan.asked.subjects:
            with closing(subject):
                measurer = Measurer(subject, folder, solvers)
                for cell in plan.cells(subject.name):
                    result, is_new = measurer.result(cell, meter.part)
                    meter.count(result, is_new=is_new)
                    results.append(result)
    finally:
        meter.close()
    return results


def write(plan: Plan, folder: BenchFolder, results: Sequence[Result], title: str, command: str) -> str:
    """Write tables, pictures and page; returns the path of the page. Raises StoreError."""
    found = crossings(results)
    folder.write_file("results.csv", as_csv(RESULT_COLUMNS, result_rows(results)))
    folder.write_file("pareto.csv", as_csv(PARETO_COLUMNS, map(pareto_row, found)))
    folder.write_file("results.json", as_json(plan.asked.settings, results, found))
    titles = {subject.name: subject.title for subject in plan.asked.subjects}
    about = About(title, command, titles, plan.asked.samples, plan.asked.settings, environment.describe())
    return write_page(folder, about, results)


def grid_rows(found: Sequence[Crossing]) -> tuple[list[str], list[list[str]]]:
    """The crossings as a table of text: headings, and a row per problem, error and solver with a cell per K."""
    problems = list(dict.fromkeys(each.problem for each in found))
    workers = sorted({each.workers for each in found})
    rows: dict[tuple[str, float, str], dict[int, Crossing]] = {}
    for each in sorted(found, key=lambda each: (problems.index(each.problem), each.error)):
        rows.setdefault((each.problem, each.error, each.solver), {})[each.workers] = each
    return ["problem", "RMSE", "solver", *(f"K={count}" for count in workers)], [
        [problem, f"{error:g}", solver, *(_words(by_k.get(count)) for count in workers)]
        for (problem, error, solver), by_k in rows.items()
    ]


def _words(crossing: Crossing | None) -> str:
    if crossing is None:
        return ""
    if crossing.rounds is None:
        return "not reached"
    sign = "<= " if crossing.state == "at most" else ""
    return f"{sign}{crossing.rounds:.1f} ({crossing.speedup:.2f}x)"
