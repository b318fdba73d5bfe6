"""Measure the cells of one subject: the sequential references first, then every cell that has no record yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from genrun.runner.bench.folder import BenchFolder, code_of
from genrun.runner.bench.results import PointResult, SampleResult
from genrun.runner.bench.subjects import SolvedSample, Subject
from genrun.runner.bench.sweep import REFERENCE, SweepPoint
from genrun.runner.errors import MixError, RunError
from genrun.runner.job.registries import RegistryLike

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
