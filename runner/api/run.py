"""Run: the items, files and scores of a run folder, and the methods that score, compare and report it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.api import RUNS, results, state
from genrun.runner.api.calls import QUIET, Listener, checked
from genrun.runner.api.state import AnyRun, Item, Status, run_folder
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from genrun.runner.api.measuring import Bench
    from genrun.runner.api.results import Report
    from genrun.runner.compare import Comparison
    from genrun.runner.export.export import Exported
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.records import Score
    from genrun.runner.store.results import Tally
    from genrun.runner.store.verify import Flaw


class Run(os.PathLike[str]):
    """A run folder. Every property is read from disk when it is asked for, so that it is as the run is now.

        run = genrun.Run("demo")
        print(run.tally, run.media)
        run.score(["psnr"])
        run.report()

    Args:
        run: a run folder, a job's name (its latest run), or None (the run submitted last).
        runs: the folder of runs, for names.

    Attributes:
        folder: the files of the run.

    Raises:
        UsageError: there is no such run.
        StoreError: the folder is not a run.
    """

    @checked
    def __init__(self, run: AnyRun = None, *, runs: str | os.PathLike[str] = RUNS) -> None:
        self.folder: RunFolder = run_folder(run, runs)

    def __fspath__(self) -> str:
        return str(self.folder.path)

    def __repr__(self) -> str:
        tally = self.tally
        failed = f", {tally.failed} failed" if tally.failed else ""
        return f"Run({str(self.path)!r}: {tally.done} of {tally.items} items done{failed})"

    def _repr_html_(self) -> str:
        """Return state, costs and scores as tables, for notebooks."""
        from html import escape

        tally, table = self.tally, results.tabulate(self.folder, self.scores)
        counts = f"{tally.done} of {tally.items} items done" + (f", {tally.failed} failed" if tally.failed else "")
        names = (*table.axes, *(column.title for column in table.columns))
        texts = [(*row.labels, *(cell.text for cell in row.cells)) for row in table.rows]
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        rows = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in texts)
        table_html = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        return f"<p><code>{escape(str(self.path))}</code>: {counts}</p>{table_html}"

    @checked
    def plot(self, metric: str = "latent_rmse") -> Any:
        """Return a matplotlib figure: model calls in a row across, a metric up, a dot for each cell of the matrix.

        Args:
            metric: of the run's scores.

        Raises:
            UsageError: the metric was not scored.
        """
        from matplotlib.figure import Figure

        from genrun.registry import did_you_mean
        from genrun.runner.score.summary import summarize

        groups = summarize(self.folder.items(), self.folder.records(), self.scores)
        shown = [(group, group.rounds, group.metrics.get(metric)) for group in groups]
        points = [(group.label, rounds.mean, value.mean) for group, rounds, value in shown if rounds and value]
        if not points:
            known = sorted({name for group in groups for name in group.metrics})
            listed = f"Scored are: {', '.join(known)}." if known else "Nothing was scored: run.score() does it."
            raise UsageError(f"{metric!r}: not scored.{did_you_mean(metric, known)}", remedy=listed)
        figure = Figure(figsize=(5.0, 3.4), layout="constrained")
        place = figure.subplots()
        for label, rounds, value in points:
            place.plot([rounds], [value], "o", label=label.replace("$", r"\$"))
        place.set_xlabel("model calls in a row")
        place.set_ylabel(metric.replace("$", r"\$"))
        place.set_xlim(left=0)
        place.legend(fontsize=8)
        return figure

    @property
    def path(self) -> Path:
        """The run's folder, absolute."""
        return self.folder.path

    @property
    def job(self) -> Mapping[str, Any]:
        """The job with every default filled in; secrets as the names of their variables."""
        return self.folder.job_document()

    @property
    def tally(self) -> Tally:
        """Numbers of `items`, and of those that are `done`, `failed` and `pending`."""
        return self.folder.tally()

    @property
    def items(self) -> list[Item]:
        """Every item of the plan with what became of it; whether it is in work only `status` tells."""
        records = self.folder.records(check_files=True)
        return [Item.of(self.folder, item, records.get(item.id)) for item in self.folder.items()]

    @property
    def media(self) -> dict[str, Path]:
        """The pictures and clips that are done, by the ids of their items; absolute."""
        return {item.id: item.media for item in self.items if item.media is not None}

    @property
    def scores(self) -> list[Score]:
        """Every score that was measured, by metric; one without a value says why."""
        from genrun.runner.score.scoring import known_scores

        return list(known_scores(self.folder, self.folder.items(), self.folder.records()).scores)

    @checked
    def status(self, *, listener: Listener = QUIET) -> Status:
        """Tell how far the run is, and what its tasks in Slurm's queue do; see `genrun.api.status`."""
        return state.status(self.folder, listener=listener)

    @checked
    def score(
        self,
        metrics: Sequence[str] = (),
        *,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        listener: Listener = QUIET,
    ) -> list[Score]:
        """Score the items of the run; see `genrun.api.score`."""
        return results.score(self.folder, metrics, options=options, listener=listener)

    @checked
    def compare(
        self,
        baseline: AnyRun = None,
        *,
        by: str | None = None,
        label: str | None = None,
        drift: Sequence[str] = (),
        confidence: float = 0.95,
    ) -> Comparison:
        """Compare this run with a baseline, or its own cells with each other; see `genrun.api.compare`.

        Args:
            baseline: another run; None compares the cells of this one.
            by: the axis of the matrix along which cells are compared.
            label: the label of that axis that the others are held against.
            drift: metrics of the distance to the baseline's own clips: "psnr", "ssim".
            confidence: of every interval.
        """
        runs = (self.folder,) if baseline is None else (baseline, self.folder)
        return results.compare(*runs, by=by, baseline=label, drift=drift, confidence=confidence)

    @checked
    def report(self, *, standalone: bool = False, pdf: bool | str | os.PathLike[str] = False) -> Report:
        """Write the report of the run; see `genrun.api.report`."""
        return results.report(self.folder, standalone=standalone, pdf=pdf)

    @checked
    def bench(
        self,
        solvers: str | Sequence[str] = "all",
        *,
        workers: str | Sequence[int] = (1, 2, 4, 8),
        tolerances: Sequence[float | str] | Mapping[str, Sequence[float]] = (),
        samples: int = 16,
        out: str | os.PathLike[str] | None = None,
        listener: Listener = QUIET,
    ) -> Bench:
        """Measure solvers on the model and sampling of this run; see `genrun.api.bench`.

        Args:
            solvers: names, with options as in "ropa:curvature=false".
            workers: values of K.
            tolerances: of all solvers, or by a solver's name.
            samples: of each cell, with the captions that come with genrun.
            out: the folder of the results; bench/NAME by default.
            listener: hears what is measured, and how far it is.

        Raises:
            UsageError: the run's cells differ in model or sampling, so that it is not clear which to measure.
        """
        from genrun.runner.api.measuring import bench

        cells = {json.dumps([item.model, item.sampling], sort_keys=True): item for item in self.folder.items()}
        if len(cells) != 1:
            raise UsageError(
                f"{self.path}: its cells differ in model or sampling.", remedy="genrun.bench(MODEL) takes one."
            )
        (item,) = cells.values()
        model, sampling = item.model, dict(item.sampling)
        steps, guidance = sampling.pop("steps", None), sampling.pop("guidance_scale", None)
        held = {key: model.get(key) for key in ("checkpoint", "revision", "dtype", "device", "variant")}
        name = model["adapter"]
        if name == "auto":
            name = held.pop("checkpoint")
        sets = [f"model.{key}={json.dumps(value)}" for key, value in held.items() if value is not None]
        sets += [f"sampling.{key}={json.dumps(value)}" for key, value in sampling.items() if value is not None]
        return bench(
            name,
            solvers=solvers,
            workers=workers,
            tolerances=tolerances,
            samples=samples,
            steps=steps,
            guidance=guidance,
            sets=sets,
            out=out,
            listener=listener,
        )

    @checked
    def export(
        self,
        to: str | os.PathLike[str],
        *,
        name: str = results.NAME,
        formats: Sequence[str] = (results.AS_IS,),
        sheet: bool = False,
        csv: bool = False,
    ) -> Exported:
        """Copy the results to a folder, under names that say what they are; see `genrun.api.export`."""
        return results.export(self.folder, to, name=name, formats=formats, sheet=sheet, csv=csv)

    def verify(self) -> list[Flaw]:
        """Return everything that is wrong with the run's files; empty for a run that is whole."""
        return results.verify(self.folder)

    def to_pandas(self) -> Any:
        """Return a pandas.DataFrame with a row for each item: its id, axes, prompt, seed, state, costs, media and scores.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            pandas = import_module("pandas")
        except ImportError as error:
            raise UsageError("pandas is not installed.", remedy="pip install pandas") from error
        values: dict[str, dict[str, float | None]] = {}
        for score in self.scores:
            values.setdefault(score.item_id, {})[score.metric] = score.value
        columns = ("prompt", "seed", "status", "elapsed_s", "rounds", "nfe", "media")
        rows = [
            {
                "id": item.id,
                **item.axes,
                **{column: getattr(item, column) for column in columns},
                **values.get(item.id, {}),
            }
            for item in self.items
        ]
        return pandas.DataFrame(rows).set_index("id")
