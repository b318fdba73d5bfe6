"""The steps that follow a run's items in a queue: its scores, and its report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genrun.runner.errors import IncompleteError

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder


def score(folder: RunFolder) -> None:
    """Measure the metrics of a run's job, and print how many values there are.

    Raises:
        IncompleteError: nothing could be scored.
    """
    from genrun.adapters.scorers.vbench.environment import metric_defaults
    from genrun.runner.score.metrics import wanted_metrics
    from genrun.runner.score.scoring import score_run

    metrics = wanted_metrics(folder, defaults=metric_defaults(folder.path.parents[1]))
    rows = score_run(folder, metrics, note=print)
    scored = sum(row.value is not None for row in rows)
    print(f"{folder.path}: {scored} values of {len(metrics)} metrics", flush=True)
    if metrics and not scored:
        raise IncompleteError(f"{folder.path}: nothing could be scored.", remedy="Why: genrun score.")


def report(folder: RunFolder) -> None:
    """Build the report of a run, and print where it lies."""
    from genrun.runner.report.build import build_report

    print(build_report(folder).path, flush=True)
