"""Measuring solvers against the sequential sampler: on a model, on closed-form problems, and what ranks add."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.api.calls import QUIET, Listener, checked
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from genrun.runner.bench.results import Crossing, PointResult

SAMPLES, REPEATS = 16, 3
"""Samples of a cell, and of a solver on ranks, unless told otherwise."""


@dataclass(frozen=True)
class Bench:
    """Solvers measured against the sequential sampler.

    Attributes:
        folder: of the results, the tables and the page.
        page: the path of the page.
        results: a cell each: a solver with K and a tolerance on a problem. One that was refused says why.
        pareto: the rounds of each solver at equal error.
        files: the LaTeX table and the figures, where they were asked for.
    """

    folder: Path
    page: Path
    results: Sequence[PointResult]
    pareto: Sequence[Crossing]
    files: tuple[Path, ...] = ()


@checked
def bench(
    model: str | None = None,
    *,
    problem: str | None = None,
    solvers: str | Sequence[str] = "all",
    workers: str | Sequence[int] = (1, 2, 4, 8),
    tolerances: Sequence[float | str] | Mapping[str, Sequence[float]] = (),
    samples: int = SAMPLES,
    steps: int | None = None,
    seed: int = 0,
    scheduler: str | None = None,
    guidance: float | None = None,
    prompts: str | os.PathLike[str] | None = None,
    batch: int = 1,
    caches: Sequence[str] = (),
    sets: Sequence[str] = (),
    out: str | os.PathLike[str] | None = None,
    latex: bool = False,
    pdf: bool = False,
    command: str = "",
    listener: Listener = QUIET,
) -> Bench:
    """Measure solvers against the sequential sampler: rounds, error, time.

    Every solver is run with every K over a sweep of tolerances, and compared with the sequential sampler of the same
    seeds. Each finished cell is kept in the folder, so that the same call goes on where it was cut off.

    Args:
        model: a model's name, folder or hub id.
        problem: a closed-form problem in place of a model: "mixture", "bifurcation", "linear", or "analytic" for all.
        solvers: names, with options as in "ropa:curvature=false"; or one text of them, with commas.
        workers: values of K, evaluations a round; or one text of them, with commas.
        tolerances: of all solvers, or by a solver's name; by default a sweep around each solver's own. Texts are as
            on the command line: "0.1,0.2" or "ropa=0.1,0.2".
        samples: of each cell.
        steps: N; the model's own, or 50.
        seed: of the first sample.
        scheduler: a diffusers scheduler in place of the pipeline's own.
        guidance: guidance scale.
        prompts: a file of prompts, taken in turn.
        batch: samples of one pipeline call; above 1 bits may differ.
        caches: a cache on each solver, such as "first_block:threshold=0.1".
        sets: anything else of a job's model and sampling, as texts `a.b=value`.
        out: the folder of the results; bench/NAME by default.
        latex: write pareto.tex, too: a table for a paper.
        pdf: write the charts into figures/, too, as PDF.
        command: what the page says that it was made by.
        listener: hears what is measured, and how far it is.

    Raises:
        UsageError: neither a model nor a problem, or both; a solver, cache or problem that there is not.
        JobFileError: the model or a value of it is wrong.
        MixError: the folder was begun with another model, prompts or sampling.
    """
    from genrun.runner.bench import measure
    from genrun.runner.bench.charts import write_figures
    from genrun.runner.bench.outputs import write_latex
    from genrun.runner.bench.results import BenchFolder, crossings
    from genrun.runner.bench.subjects import ModelQuestion, ask_model, ask_problem
    from genrun.runner.bench.sweep import parse_solvers, parse_tolerances, parse_workers, with_caches
    from genrun.runner.job.options import Registries

    if (model is None) == (problem is None):
        raise UsageError("wanted a model or a problem.", remedy="For example: genrun.bench('demo-image').")
    registries = Registries.installed()
    variants = parse_solvers(solvers if isinstance(solvers, str) else ",".join(solvers), registries.solvers)
    if caches:
        variants = with_caches(variants, caches, registries.caches)
    sweeps = parse_tolerances(_texts(tolerances), variants)
    if model is None:
        asked = ask_problem(str(problem), samples, seed, steps)
    else:
        file = None if prompts is None else os.fspath(prompts)
        asked = ask_model(ModelQuestion(model, samples, seed, steps, scheduler, guidance, file, batch, sets))
    ks = workers if isinstance(workers, str) else ",".join(map(str, workers))
    plan = measure.SweepPlan(asked, variants, parse_workers(ks), sweeps)
    name = problem or asked.subjects[0].name
    folder = BenchFolder.open(Path(out) if out is not None else Path("bench") / name, asked.settings)
    listener.say(f"{folder.path}: {plan.total} cells of {len(asked.samples)} samples.")
    results = measure.measure(plan, folder, registries.solvers, listener.display())
    page = measure.write(plan, folder, results, name, command or f"genrun.bench({model or problem!r})")
    found = crossings(results)
    files = []
    if latex:
        write_latex(folder, len(asked.samples), results)
        files.append(folder.path / "pareto.tex")
    if pdf:
        files += [folder.path / name for name in write_figures(folder, results, found)]
    return Bench(folder.path, Path(page), results, found, tuple(files))


@dataclass(frozen=True)
class RanksBench:
    """Overhead of time-parallel ranks over rounds x latency.

    Attributes:
        latency_ms: of a model evaluation.
        rows: a solver on a number of ranks each: medians over the repeats.
    """

    latency_ms: float
    rows: Sequence[Mapping[str, Any]]


@checked
def bench_ranks(
    ranks: int = 8,
    *,
    latency_ms: float = 50.0,
    solvers: str | Sequence[str] = "all",
    samples: int = REPEATS,
    steps: int = 50,
    out: str | os.PathLike[str] | None = None,
    listener: Listener = QUIET,
) -> RanksBench:
    """Measure what time-parallel ranks add to rounds x latency, with a model that only waits.

    Args:
        ranks: the most ranks; powers of two below it are measured, too.
        latency_ms: of a model evaluation.
        solvers: names.
        samples: of each solver.
        steps: N.
        out: a folder for engine.csv; none by default.
        listener: hears what is measured, and how far it is.
    """
    from genrun.runner.bench.engine import COLUMNS, EngineQuestion, measure_engine
    from genrun.runner.bench.outputs import as_csv
    from genrun.runner.bench.sweep import parse_solvers
    from genrun.runner.job.options import Registries
    from genrun.runner.store.files import atomic_write

    names = solvers if isinstance(solvers, str) else ",".join(solvers)
    kinds = ["sequential", *(variant.kind for variant in parse_solvers(names, Registries.installed().solvers))]
    question = EngineQuestion(ranks, latency_ms, steps, samples, kinds)
    sizes = ", ".join(map(str, question.sizes))
    listener.say(f"Ranks {sizes} on {os.cpu_count()} processor cores; a rank needs one of its own.")
    rows = measure_engine(question, os.environ, listener.display())
    if out is not None:
        atomic_write(Path(out) / "engine.csv", as_csv(COLUMNS, rows))
    return RanksBench(latency_ms, rows)


def _texts(tolerances: Sequence[float | str] | Mapping[str, Sequence[float]]) -> list[str]:
    """Return sweeps as the command line writes them: "0.1,0.2" for all solvers, "ropa=0.1,0.2" for one."""
    if isinstance(tolerances, Mapping):
        return [f"{name}={','.join(map(str, values))}" for name, values in tolerances.items()]
    texts = [each for each in tolerances if isinstance(each, str)]
    numbers = [str(each) for each in tolerances if not isinstance(each, str)]
    return [*texts, *([",".join(numbers)] if numbers else [])]
