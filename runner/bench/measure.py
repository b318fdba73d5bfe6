"""Run a bench: the sequential references first, then every cell without a record; then tables and a page."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from genrun.runner.bench.outputs import About, write_page, write_tables
from genrun.runner.bench.results import BenchFolder, PointResult, SampleResult, code_of
from genrun.runner.bench.subjects import Asked, SolvedSample, Subject
from genrun.runner.bench.sweep import REFERENCE, SweepPoint, Variant, sweep
from genrun.runner.errors import MixError, RunError
from genrun.runner.job.options import RegistryLike
from genrun.runner.progress import Display, Progress
from genrun.runner.store import environment

if TYPE_CHECKING:
    from torch import Tensor

    from genrun.solvers.contract import Solver


OnPart = Callable[[float], None]
"""Callback that gets the share of the current work that is done, 0..1."""


@dataclass(frozen=True)
class References:
    """The output of the sequential sampler.

    Attributes:
        latents: of every sample.
        num_steps: N.
        evaluation_s: time per model call, in this process.
    """

    latents: tuple[Tensor, ...]
    num_steps: int
    evaluation_s: float


@dataclass
class Timed:
    """Samples of several calls, and the time these took."""

    samples: list[SolvedSample]
    elapsed_s: float = 0.0
    calls: int = 0


@dataclass
class SubjectMeasurer:
    """The measuring of one subject; the references are made, or checked, when the first cell needs them.

    Attributes:
        subject: what is sampled.
        folder: where records are kept.
        solvers: the registry.
    """

    subject: Subject
    folder: BenchFolder
    solvers: RegistryLike
    _references: References | None = None
    _codes: dict[str, str] = field(default_factory=dict)

    def result(self, cell: SweepPoint, on_part: OnPart) -> tuple[PointResult, bool]:
        """Return the record of a cell, measuring it first if there is none; and whether it was measured now.

        Raises:
            RunError: the sequential sampler fails.
            MixError: this machine's sequential latents differ from those that the bench was begun with.
            StoreError: the folder cannot be read or written.
        """
        code = self._code(cell)
        found = self.folder.result(cell, code)
        if found is not None:
            return found, False
        measured = self._measure(cell, code, on_part)
        self.folder.write(measured)
        return measured, True

    def references(self, on_part: OnPart) -> References:
        """Return the sequential latents, from the folder where they are there; the first are made again to be timed.

        Raises:
            RunError: the sequential sampler fails.
            MixError, StoreError: as `result`.
        """
        from genrun.solvers import SolverError

        if self._references is None:
            try:
                self.subject.warm_up()
                self._references = self._make_references(on_part)
            except SolverError as error:
                raise RunError(f"{self.subject.name}: the sequential sampler itself fails: {error}.") from error
        return self._references

    def _code(self, cell: SweepPoint) -> str:
        from genrun.adapters.caches import registry

        kind, cache = cell.kind, cell.cache.get("kind", "")
        if kind not in self._codes:
            self._codes[kind] = code_of(self.solvers.get(kind))
        if cache and cache not in self._codes:
            self._codes[cache] = code_of(registry.get(cache))
        return self._codes[kind] + self._codes.get(cache, "")

    def _make_references(self, on_part: OnPart) -> References:
        solver, first = self.solvers.get(REFERENCE)(), range(min(self.subject.batch, self.subject.count))
        timed = _run(self.subject, solver, first, on_part)
        latents = [sampled.x for sampled in timed.samples]
        self._check_same(latents)
        for start in range(len(latents), self.subject.count, self.subject.batch):
            chunk = range(start, min(start + self.subject.batch, self.subject.count))
            kept = [self.folder.reference(self.subject.name, index) for index in chunk]
            made = [x for x in kept if x is not None]
            if len(made) < len(chunk):
                made = [sampled.x for sampled in self.subject.run(solver, chunk)]
            latents += made
            self._keep(chunk, made)
            on_part(chunk.stop / self.subject.count)
        return References(tuple(latents), timed.samples[0].solution.rounds, timed.elapsed_s / timed.calls)

    def _check_same(self, latents: Sequence[Tensor]) -> None:
        kept = [self.folder.reference(self.subject.name, index) for index in range(len(latents))]
        if any(old is not None and not old.equal(new) for old, new in zip(kept, latents, strict=True)):
            raise MixError(
                f"{self.folder.path}: the sequential sampler makes other latents of {self.subject.name} than it did when "
                "this bench was begun: another machine, number of threads, or version of genrun.",
                remedy="Choose another folder with --out.",
            )
        self._keep(range(len(latents)), latents)

    def _keep(self, indices: Sequence[int], latents: Sequence[Tensor]) -> None:
        for index, x in zip(indices, latents, strict=True):
            if self.folder.reference(self.subject.name, index) is None:
                self.folder.write_reference(self.subject.name, index, x)

    def _measure(self, cell: SweepPoint, code: str, on_part: OnPart) -> PointResult:
        from genrun.adapters.errors import RefusedError
        from genrun.solvers import SolverError

        references = self.references(on_part)
        try:
            solver = self.solvers.get(cell.kind)(**cell.options)
        except ValueError as error:
            return PointResult(cell, code, references.num_steps, (), f"refused: {error}")
        try:
            timed = _run(self.subject, solver, range(self.subject.count), on_part, cell.cache)
        except (SolverError, RefusedError) as error:
            return PointResult(cell, code, references.num_steps, (), f"{type(error).__name__}: {error}")
        samples = tuple(map(self._compare, timed.samples, references.latents))
        times = (timed.elapsed_s, timed.calls, references.evaluation_s)
        return PointResult(cell, code, references.num_steps, samples, "", *times)

    def _compare(self, sampled: SolvedSample, reference: Tensor) -> SampleResult:
        from genrun.adapters.scorers.contract import UnscoredError
        from genrun.adapters.scorers.latent_rmse import difference
        from genrun.adapters.scorers.latent_worst_block import worst_block

        error, spread = difference(sampled.x, reference)
        try:
            worst = worst_block(error, spread, self.subject.num_frames)
        except UnscoredError:
            worst = None
        solution = sampled.solution
        return SampleResult(
            solution.rounds,
            solution.nfe,
            solution.skipped,
            solution.converged_by,
            solution.fronts,
            error.mean().sqrt().item() / spread,
            worst,
            solution.blocks,
        )


def _run(
    subject: Subject, solver: Solver, indices: Sequence[int], on_part: OnPart, cache: Mapping[str, Any] | None = None
) -> Timed:
    """Run samples, as many at once as the subject does, on the clock."""
    timed = Timed([])
    for start in range(0, len(indices), subject.batch):
        chunk = indices[start : start + subject.batch]
        started = time.perf_counter()
        sampled = subject.run(solver, chunk, cache) if cache else subject.run(solver, chunk)
        timed.elapsed_s += time.perf_counter() - started
        timed.calls += max(each.solution.rounds for each in sampled)
        timed.samples += sampled
        on_part(len(timed.samples) / len(indices))
    return timed


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
