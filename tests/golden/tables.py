"""Measuring, writing and reading the golden tables.

A table holds, for every solver at its default options and for each K, what each sample took: rounds, evaluations, and the
RMSE of its final latents to the sequential ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from genrun.runner.bench.measure import SubjectMeasurer
from genrun.runner.bench.results import BenchFolder
from genrun.runner.bench.subjects import ModelQuestion, ask_model
from genrun.runner.bench.sweep import REFERENCE, SweepPoint, parse_solvers
from genrun.runner.job.options import Registries

MODELS = ("demo-image", "demo-video")
WORKERS = (4, 8)
STEPS, SAMPLES = 50, 2
FOLDER = Path(__file__).parent
RENEW = "make golden"
DECIDING = ("model", "sampling", "call", "samples")
"""Settings that must be the same for numbers to be compared; versions and machines may differ, within the slack."""
SOLVERS = Registries.installed().solvers
PARALLEL = tuple(name for name in SOLVERS.names() if name != REFERENCE)


@dataclass(frozen=True)
class Row:
    """A solver at its defaults with K workers, sample by sample."""

    solver: str
    workers: int
    rounds: Sequence[int]
    nfe: Sequence[int]
    rmse: Sequence[float]

    @property
    def mean_rounds(self) -> float:
        return fmean(self.rounds)

    @property
    def mean_nfe(self) -> float:
        return fmean(self.nfe)

    @property
    def mean_rmse(self) -> float:
        return fmean(self.rmse)


class Golden:
    """A model under measurement: its sequential latents are made once."""

    def __init__(self, model: str, folder: Path) -> None:
        asked = ask_model(ModelQuestion(model, samples=SAMPLES, steps=STEPS, sets=("model.device=cpu",)))
        self.model, self._subject = model, asked.subjects[0]
        self.settings = {name: json.loads(json.dumps(asked.settings[name])) for name in DECIDING}
        self._measurer = SubjectMeasurer(self._subject, BenchFolder.open(folder, asked.settings), SOLVERS)

    def rows(self, solver: str) -> list[Row]:
        """Measure one solver. Raises AssertionError where it refuses or fails."""
        return [self._row(solver, workers) for workers in WORKERS]

    def close(self) -> None:
        """Let go of the model."""
        self._subject.close()

    def _row(self, solver: str, workers: int) -> Row:
        (variant,) = parse_solvers(solver, SOLVERS)
        options = {**variant.options, "workers": workers, "tolerance": variant.tolerance}
        cell = SweepPoint(self.model, solver, solver, workers, variant.tolerance, options)
        result, _ = self._measurer.result(cell, lambda _: None)
        assert result.samples, f"{solver} with K = {workers} on {self.model}: {result.error}"
        samples = result.samples
        return Row(
            solver,
            workers,
            [sample.rounds for sample in samples],
            [sample.nfe for sample in samples],
            [float(f"{sample.rmse:.3g}") for sample in samples],
        )


def path_of(model: str) -> Path:
    """The table's file."""
    return FOLDER / f"{model}.json"


def write(model: str, settings: Mapping[str, Any], rows: Iterable[Row]) -> None:
    """Write a table, a row a line, so that a change of it can be read."""
    lines = ",\n    ".join(json.dumps(asdict(row)) for row in rows)
    text = f'{{\n  "settings": {json.dumps(settings)},\n  "rows": [\n    {lines}\n  ]\n}}\n'
    path_of(model).write_text(text, encoding="ascii")


def read(model: str) -> tuple[dict[str, Any], dict[tuple[str, int], Row]]:
    """Return a table's settings, and its rows by solver and K. Raises FileNotFoundError."""
    table = json.loads(path_of(model).read_text(encoding="ascii"))
    rows = [Row(**row) for row in table["rows"]]
    return table["settings"], {(row.solver, row.workers): row for row in rows}
