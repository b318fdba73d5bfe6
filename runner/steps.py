"""The steps that follow a run's items: its scores, its report, and who is told of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from genrun.runner.errors import GenrunError, IncompleteError

if TYPE_CHECKING:
    from genrun.runner.job.schema import NotifySpec
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


def notify(folder: RunFolder) -> None:
    """Tell the command of a run's job how the work ended, and print what went wrong with that."""
    from genrun.runner.job import restore

    wanted = restore(folder.job_document()).notify
    trouble = tell(folder, wanted, "") if wanted is not None else ""
    if trouble:
        print(trouble, flush=True)


def tell(folder: RunFolder, wanted: NotifySpec, trouble: str) -> str:
    """Give a command the state of a run as JSON; return a note on what went wrong with it, or "".

    Args:
        folder: the run.
        wanted: the command, and when it is told.
        trouble: the error with which the work ended, or "".
    """
    from genrun.runner.nightly.run import notify as run

    told = outcome(folder, trouble)
    if wanted.when == "trouble" and told["state"] == "done":
        return ""
    return run(wanted.command, told, wanted.timeout_s, os.environ)


def outcome(folder: RunFolder, trouble: str) -> dict[str, Any]:
    """Return how the work on a run ended, as JSON: its state and numbers, the first error, and the page if there is one."""
    page = folder.report_dir / "index.html"
    told: dict[str, Any] = {"run": str(folder.path), "job": folder.path.parent.name, "state": "incomplete"}
    try:
        records = folder.records(check_files=True)
        items = [records.get(item.id) for item in folder.items()]
    except GenrunError as error:
        return {**told, "error": trouble or str(error)}
    done = sum(record is not None and record.status == "done" for record in items)
    failed = [record for record in items if record is not None and record.status == "failed"]
    if not trouble and done + len(failed) == len(items):
        told["state"] = "failed" if failed else "done"
    reason = next((str((record.error or {}).get("message") or "") for record in failed), "")
    return {
        **told,
        "items": len(items),
        "done": done,
        "failed": len(failed),
        "pending": len(items) - done - len(failed),
        "error": trouble or reason or None,
        "report": str(page) if page.is_file() else None,
    }
