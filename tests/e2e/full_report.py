"""A report with all that a report can have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from genrun.runner import history
from genrun.runner.report.build import build_report
from genrun.runner.score.metrics import wanted_metrics
from genrun.runner.score.scoring import score_run
from genrun.runner.store.runs import pin
from tests.fakes.nights import night
from tests.sample_run import ALL_SOLVERS, CAPTIONS, SEQUENTIAL, make_run

HOSTILE = '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 2"> ' + "unbroken" * 40
ERROR = {"kind": "OutOfMemoryError", "message": "out of memory", "remedy": "Use less.", "log": "logs/rank-0.log"}
BETTER = (SEQUENTIAL, *(replace(solver, error=solver.error / 2) for solver in ALL_SOLVERS[1:]))


def full_report(base: Path) -> Path:
    """A report of nine prompts by five solvers, two of them failed, with a pinned baseline, gates and three nights."""
    baseline = make_run(base / "demo" / "baseline", solvers=BETTER, prompts=CAPTIONS)
    run = make_run(
        base / "demo" / "run-3",
        solvers=ALL_SOLVERS,
        prompts=(*CAPTIONS, HOSTILE, "a cat", "a dog", "a bird", "a fish"),
        failed={12: ERROR, 13: ERROR},
        pending=(44,),
        gates={"latent_rmse": {"max": 0.05, "max_rise": 0.001}, "rounds": {"max": 30}, "psnr": {"min": 20}},
    )
    for each in (baseline, run):
        score_run(each, wanted_metrics(each, ["latent_rmse", "checker"]))
    pin(baseline)
    history.rebuild(base)
    for number, value in enumerate((33.0, 29.0, 34.0), start=1):
        history.record(base, night(number, value, commit=number * "abcdef12"))
    return build_report(run).path
