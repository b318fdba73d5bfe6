"""Time the time-parallel engine without a model: loops on 1 to N gloo ranks against rounds x latency.

Ranks are processes of this machine under torchrun (`runner/bench/rank.py`), which need a processor core each to be judged.
"""

from __future__ import annotations

import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genrun.runner.errors import LaunchError
from genrun.runner.launch.jobs import explain
from genrun.runner.launch.local import without_rank
from genrun.runner.progress import Display, Progress

RANK = "genrun.runner.bench.rank"
COLUMNS = (
    "solver",
    "ranks",
    "rounds",
    "nfe",
    "ratio",
    "loop_ms",
    "model_ms",
    "exchange_ms",
    "rest_ms",
    "cpu_ms",
    "setup_ms",
)
TAIL_LINES = 6
"""Lines of the ranks' own output that an error repeats."""

TORCHRUN = re.compile(r"E\d{4} ")
"""Beginning of torchrun's summary of a failure."""


@dataclass(frozen=True)
class EngineQuestion:
    """The options of `genrun bench --engine`.

    Attributes:
        ranks: the most ranks; powers of two below it are measured, too.
        latency_ms: of a model evaluation.
        steps: N.
        repeats: samples of each solver.
        solvers: names.
    """

    ranks: int
    latency_ms: float
    steps: int
    repeats: int
    solvers: Sequence[str]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of ranks: 1, 2, 4, ... and the most."""
        powers = (2**power for power in range(self.ranks.bit_length()))
        return tuple(sorted({*(size for size in powers if size <= self.ranks), self.ranks}))


def measure_engine(question: EngineQuestion, environ: Mapping[str, str], display: Display) -> list[dict[str, Any]]:
    """Time every solver on every number of ranks; return rows by the names of COLUMNS, medians over the repeats.

    Times are per round, but `setup_ms`, which is per sample; `ratio` is the loop over rounds x latency.

    Raises:
        LaunchError: the ranks could not be started, or died.
    """
    started, rows = time.monotonic(), list[dict[str, Any]]()
    total = len(question.sizes) * len(question.solvers) * question.repeats
    made = 0
    for size in question.sizes:
        timings: list[dict[str, Any]] = []
        for timing in run_ranks(size, question, environ):
            timings.append(timing)
            made += 1
            display.show(Progress(total, made, 0, made, (), time.monotonic() - started))
        for solver in question.solvers:
            mine = [timing for timing in timings if timing["solver"] == solver]
            rows.append(row_of(mine, question.latency_ms))
    display.close(Progress(total, made, 0, made, (), time.monotonic() - started))
    return rows


def row_of(timings: Sequence[Mapping[str, Any]], latency_ms: float) -> dict[str, Any]:
    """Return the medians of one solver's repeats on one number of ranks."""

    def median(value: Callable[[Mapping[str, Any]], float]) -> float:
        return statistics.median(map(value, timings))

    def per_round(name: str) -> float:
        return median(lambda timing: 1000 * timing[name] / timing["rounds"])

    first = timings[0]
    row = {"solver": first["solver"], "ranks": first["ranks"]}
    row |= {"rounds": median(lambda timing: timing["rounds"]), "nfe": median(lambda timing: timing["nfe"])}
    row |= {f"{part}_ms": per_round(f"{part}_s") for part in ("loop", "model", "exchange", "cpu")}
    row["rest_ms"] = row["loop_ms"] - row["model_ms"] - row["exchange_ms"]
    row["setup_ms"] = median(lambda timing: 1000 * timing["setup_s"])
    row["ratio"] = row["loop_ms"] / latency_ms
    return {name: row[name] for name in COLUMNS}


def run_ranks(size: int, question: EngineQuestion, environ: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Start the ranks, and yield what rank 0 prints, timing by timing. Raises LaunchError."""
    options = [f"--latency-ms={question.latency_ms}", f"--steps={question.steps}", f"--repeats={question.repeats}"]
    agent = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"]
    command = [sys.executable, *agent, "-m", RANK, *options, f"--solvers={','.join(question.solvers)}"]
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**without_rank(environ), "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"},
            text=True,
        )
        assert child.stdout is not None
        try:
            for line in child.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
            code = child.wait()
        finally:
            stop(child)
        if code:
            log.seek(0)
            raise LaunchError(f"{size} ranks: {explain(code)}.{_tail(log.read())}")


def stop(child: subprocess.Popen[str]) -> None:
    """End the ranks, if they are still there."""
    if child.stdout is not None:
        child.stdout.close()
    if child.poll() is None:
        child.terminate()
        child.wait()


def _tail(log: bytes) -> str:
    """Return the last lines of the ranks' own output, which torchrun's summary follows."""
    lines = log.decode("utf-8", "replace").rstrip().splitlines()
    own = list(itertools.takewhile(lambda line: not TORCHRUN.match(line), lines))
    return "".join(f"\n    {line}" for line in own[-TAIL_LINES:])
