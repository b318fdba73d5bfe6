"""How many tiny clips a second the metrics score that need nothing, in one process.

    OMP_NUM_THREADS=1 python -m tests.bench.scoring [--clips 1000] [--metrics A,B]

Makes a run of drawn clips (9 frames of 64x64, with latents), half of them compared with the other half, scores it, and
prints clips per second of processor time and of wall time, for all metrics and for each by itself.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from genrun.runner.score.metrics import wanted_metrics
from genrun.runner.score.scoring import score_run
from genrun.runner.store.folder import RunFolder
from tests.sample_run import CAPTIONS, ROPA, SEQUENTIAL, make_run


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of processor time and of wall time."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--metrics", default="")
    chosen = parser.parse_args()
    seeds = range(max(1, chosen.clips // (2 * len(CAPTIONS))))
    with tempfile.TemporaryDirectory() as room:
        run = make_run(Path(room) / "bench" / "run", solvers=(SEQUENTIAL, ROPA), prompts=CAPTIONS, seeds=list(seeds))
        names = [name for name in chosen.metrics.split(",") if name]
        metrics = wanted_metrics(run, names)
        score_run(first_pair(Path(room)), metrics)  # imports are paid once, here
        clips = len(run.items())
        print(f"{clips} clips, metrics {', '.join(metric.name for metric in metrics)}")
        show("all", clips, timed(lambda: score_run(run, metrics)))
        show("all, nothing new", clips, timed(lambda: score_run(run, metrics)))
        for metric in metrics:
            run.scores_path(metric.name).unlink()
            show(metric.name, clips, timed(lambda metric=metric: score_run(run, [metric])))


def first_pair(room: Path) -> RunFolder:
    """A run of two clips."""
    return make_run(room / "warm" / "run", prompts=CAPTIONS[:1])


def show(name: str, clips: int, seconds: tuple[float, float]) -> None:
    """Print a line."""
    cpu, wall = seconds
    print(f"{name:20} {clips / cpu:8.1f} clips/s of processor time   {clips / wall:8.1f} clips/s of wall time")


if __name__ == "__main__":
    main()
