"""Run a bench: measure every cell of every subject, then write tables and a page."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from genrun.runner.bench.folder import BenchFolder
from genrun.runner.bench.measure import SubjectMeasurer
from genrun.runner.bench.outputs import write_tables
from genrun.runner.bench.page import About, write_page
from genrun.runner.bench.results import PointResult
from genrun.runner.bench.subjects import Asked
from genrun.runner.bench.sweep import SweepPoint, Variant, sweep
from genrun.runner.job.registries import RegistryLike
from genrun.runner.progress import Display, Progress
from genrun.runner.store import environment


@dataclass(frozen=True)
class SweepPlan:
    """Everything that a bench measures.

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

    def cells(self, problem: str) -> list[SweepPoint]:
        """Return every cell of one subject."""
        return list(sweep(problem, self.variants, self.workers, self.tolerances))

    @property
    def total(self) -> int:
        """Number of cells."""
        return sum(len(self.cells(subject.name)) for subject in self.asked.subjects)


@dataclass
class Meter:
    """Progress of a bench on a display: cells found, cells measured, and the part of the current one that is done."""

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
        """Show that a part of a cell, 0..1, is done."""
        self.display.show(self._progress((fraction,)))

    def count(self, result: PointResult, *, is_new: bool) -> None:
        """Count a cell that is done."""
        self.made += is_new
        self.done += bool(result.samples)
        self.failed += not result.samples
        self.display.show(self._progress(()))

    def close(self) -> None:
        """Show the end, or that the bench was cut off."""
        self.display.close(self._progress(()))

    def _progress(self, in_work: tuple[float, ...]) -> Progress:
        return Progress(self.total, self.done, self.failed, self.made, in_work, self.clock() - self.started)


def measure(plan: SweepPlan, folder: BenchFolder, solvers: RegistryLike, display: Display) -> list[PointResult]:
    """Measure what has no record yet, and return every cell of the plan.

    Raises:
        RunError, MixError, StoreError: as `SubjectMeasurer.result`.
    """
    meter, results = Meter(display, plan.total), []
    try:
        for subject in plan.asked.subjects:
            with closing(subject):
                measurer = SubjectMeasurer(subject, folder, solvers)
                for cell in plan.cells(subject.name):
                    result, is_new = measurer.result(cell, meter.part)
                    meter.count(result, is_new=is_new)
                    results.append(result)
    finally:
        meter.close()
    return results


def write(plan: SweepPlan, folder: BenchFolder, results: Sequence[PointResult], title: str, command: str) -> str:
    """Write tables, pictures and page; return the path of the page. Raises StoreError."""
    write_tables(folder, plan.asked.settings, results)
    titles = {subject.name: subject.title for subject in plan.asked.subjects}
    about = About(title, command, titles, plan.asked.samples, plan.asked.settings, environment.describe())
    return write_page(folder, about, results)
