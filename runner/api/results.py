"""Results of a run: scores, comparisons, reports, exports, and the check that every file is whole."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.runner.api import RUNS
from genrun.runner.api.calls import QUIET, Listener, checked
from genrun.runner.api.state import AnyRun, run_folder
from genrun.runner.errors import UsageError

if TYPE_CHECKING:
    from genrun.runner.compare import Comparison, Gate
    from genrun.runner.export.export import Exported
    from genrun.runner.report.sections.summary import SummaryTable
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.records import Score
    from genrun.runner.store.verify import Flaw

AS_IS = "as-is"
FORMATS = (AS_IS, "gif", "webp", "webm", "frames")
"""Formats of the media in an export."""

NAME = "{index:04}_{name}_{seed}_{cell}"
"""File names of an export, unless told otherwise."""


@checked
def score(
    run: AnyRun = None,
    metrics: Sequence[str] = (),
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    shard: str = "",
    runs: str | os.PathLike[str] = RUNS,
    listener: Listener = QUIET,
) -> list[Score]:
    """Score the items of a run; what was scored before is kept unless its files have changed.

    Args:
        run: the run.
        metrics: names; those that the job names when empty, or all that need nothing beside genrun.
        options: metric -> option -> value, over those of the job.
        shard: "2/8" for one of so many parts; that of this rank, if any, when "".
        runs: the folder of runs, for names.
        listener: hears of lines that cannot be read, and how many items are scored.

    Returns:
        All rows: by metric, then in the order of the plan, sets of items last. One without a value has a reason.

    Raises:
        UsageError: no metric of that name, or no such option.
    """
    from genrun.adapters.scorers.vbench.environment import metric_defaults
    from genrun.runner.score.metrics import wanted_metrics
    from genrun.runner.score.scoring import RANKS, score_run, shard_of

    folder = run_folder(run, runs)
    chosen = wanted_metrics(folder, metrics, options, metric_defaults(folder.path.parents[1]))
    share = shard_of(shard)
    if share.count > 1 and not shard:
        # Some machines set the variables of a rank for good: what is measured then is less than is asked for.
        names = next(" and ".join(each) for each in RANKS if all(name in os.environ for name in each))
        listener.say(
            f"Shard {share.index + 1}/{share.count}, as {names} say: what is left is measured by the other ranks. "
            "To measure all: --shard 1/1."
        )
    return score_run(folder, chosen, listener.progress, listener.say, share)


@checked
def tabulate(folder: RunFolder, scores: Sequence[Score]) -> SummaryTable:
    """Lay out costs and scores of a run: a row for each cell of the matrix, a column for each metric."""
    from genrun.runner.report.sections.summary import build_table, headings
    from genrun.runner.score.summary import summarize

    metrics = headings(scores)
    groups = summarize(folder.items(), folder.records(), scores)
    return build_table(groups, metrics)


@checked
def compare(
    *run: AnyRun,
    by: str | None = None,
    baseline: str | None = None,
    gates: str | os.PathLike[str] | Sequence[Gate] | None = None,
    drift: Sequence[str] = (),
    confidence: float = 0.95,
    runs: str | os.PathLike[str] = RUNS,
) -> Comparison:
    """Compare two runs, or the cells of one, and judge gates.

    Items are paired by prompt and seed, and every difference has a paired interval. A gate fails only when its interval
    lies wholly beyond the limit.

    Args:
        run: the baseline and the run that is judged, or one run whose cells are compared.
        by: the axis of the matrix along which the cells of one run are compared.
        baseline: the label of that axis that the others are held against.
        gates: limits, or the job file that has them; those of the run's job unless told otherwise.
        drift: metrics of the distance to the baseline's own clips: "psnr", "ssim".
        confidence: of every interval.
        runs: the folder of runs, for names.

    Raises:
        UsageError: the runs have no cell in common, there is no such axis, label or metric, or no such confidence.
        StoreError: a run cannot be read.
    """
    from genrun.runner.compare.compare import Options, compare_cells, compare_runs

    if len(run) > 2 or (len(run) == 2 and (by or baseline)):
        raise UsageError(
            "wanted two runs, or one with --by and --baseline.", remedy="For example: genrun compare demo --by solver."
        )
    first, *rest = [run_folder(each, runs) for each in run or (None,)]
    if not 0.5 <= confidence <= 0.9999:
        raise UsageError(f"confidence is {confidence!r:.60}: wanted a share from 0.5 to 0.9999, such as 0.95.")
    options = Options(_gates(gates), _drift(drift), confidence)
    return compare_runs(first, rest[0], options) if rest else compare_cells(first, by, baseline, options)


@dataclass(frozen=True)
class Report:
    """A report that was written.

    Attributes:
        path: of index.html, absolute.
        items: how many items the run has.
        failed: how many of them failed.
        pdf: the page as it was printed, absolute; None unless asked for.
    """

    path: Path
    items: int
    failed: int
    pdf: Path | None = None


@checked
def report(
    run: AnyRun = None,
    *,
    standalone: bool = False,
    pdf: bool | str | os.PathLike[str] = False,
    runs: str | os.PathLike[str] = RUNS,
) -> Report:
    """Write the report of a run: a static page with clips side by side, and numbers.

    Args:
        run: the run.
        standalone: copy the media into the report, so that the folder can be moved.
        pdf: print the page, too, with Chromium: to this file, or, when True, to report.pdf beside the page.
        runs: the folder of runs, for names.

    Raises:
        UsageError: there is no Chromium for `pdf`.
        StoreError: the run cannot be read, or the report cannot be written.
    """
    from genrun.runner.report.build import build_report, find_chromium, write_pdf

    folder = run_folder(run, runs)
    program = None if pdf is False else find_chromium(os.environ.get("PATH"))
    made = build_report(folder, standalone=standalone)
    if program is None:
        return Report(made.path, made.items, made.failed)
    target = made.path.with_name("report.pdf") if isinstance(pdf, bool) else Path(pdf).absolute()
    write_pdf(folder, program, target)
    return Report(made.path, made.items, made.failed, target)


@checked
def export(
    run: AnyRun = None,
    to: str | os.PathLike[str] = "export",
    *,
    name: str = NAME,
    formats: Sequence[str] = (AS_IS,),
    sheet: bool = False,
    csv: bool = False,
    runs: str | os.PathLike[str] = RUNS,
    listener: Listener = QUIET,
) -> Exported:
    """Copy the results of a run to a folder, under names that say what they are.

    The same export again brings the folder up to date; files that no export wrote are never replaced.

    Args:
        run: the run, which stays as it is.
        to: the folder, made when it is missing.
        name: template of file names: {index} {name} {prompt} {seed} {id} {solver} {model} {cell}, and each axis of the
            matrix.
        formats: what media become, of `FORMATS`; empty for no media.
        sheet: draw contact sheets, too.
        csv: write results.csv, too: prompts, costs and every score.
        runs: the folder of runs, for names.
        listener: hears how many items are exported.

    Raises:
        UsageError: names that cannot be, a format for another kind of media, or files in the way that no export wrote.
        StoreError: a file cannot be read or written.
    """
    from genrun.registry import did_you_mean
    from genrun.runner.export.export import ExportOptions
    from genrun.runner.export.export import export as export_run

    for each in formats:
        if each not in FORMATS:
            known = (*FORMATS, "none")
            meant = did_you_mean(each, known)
            raise UsageError(f"--format {each}: no such format.{meant}", remedy=f"There are: {', '.join(known)}.")
    wanted = ExportOptions(name, tuple(formats), sheet, csv)
    return export_run(run_folder(run, runs), Path(to).expanduser(), wanted, listener.progress)


@checked
def verify(run: AnyRun = None, *, runs: str | os.PathLike[str] = RUNS) -> list[Flaw]:
    """Return everything that is wrong with a run, reading every file; empty for a run that is whole.

    Args:
        run: the run.
        runs: the folder of runs, for names.
    """
    from genrun.runner.store.verify import verify as find_flaws

    return find_flaws(run_folder(run, runs))


def _gates(gates: str | os.PathLike[str] | Sequence[Gate] | None) -> list[Gate] | None:
    """Return the limits that were given, or those of a job file; None for those of the run's own job."""
    from genrun.runner.compare.gates import Gate, gates_of

    if gates is None:
        return None
    if isinstance(gates, str | os.PathLike):
        from genrun.runner.job import load

        return list(gates_of(load(os.fspath(gates)).document))
    if isinstance(gates, Mapping) or not all(isinstance(each, Gate) for each in gates):
        raise TypeError(f"gates is a job file that has them, or a list of Gate; got {gates!r:.60}.")
    return list(gates)


def _drift(names: Sequence[str]) -> list[str]:
    """Return the metrics of `drift` by their names, refusing unknown ones."""
    from genrun.registry import did_you_mean
    from genrun.runner.compare.difference import PREFIX, drift_names

    known = [name.removeprefix(PREFIX) for name in drift_names()] if names else []
    for name in names:
        if name not in known:
            meant = did_you_mean(name, known)
            raise UsageError(f"--drift {name}: no such metric.{meant}", remedy=f"There are: {', '.join(known)}.")
    return [PREFIX + name for name in names]
