"""A rank of `genrun bench --engine`: a stock pipeline whose model sleeps, sampled on the ranks of a gloo group.

    python -m torch.distributed.run --standalone --nproc-per-node=4 -m genrun.runner.bench.rank --latency-ms 50

The transformer of demo-image is replaced by one that sleeps and answers in closed form, and prompts are encoded beforehand,
so that all that is measured is genrun's and the pipeline's own loop. Rank 0 prints a JSON object per solver and repeat.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from genrun.adapters import registry as adapters
from genrun.adapters.parallel.exchange import NOTHING, Exchange, GroupExchange, Notes
from genrun.adapters.pipeline.encoders import encode_once
from genrun.adapters.pipeline.loading import load
from genrun.adapters.sampling.call import SamplingRequest
from genrun.adapters.sampling.generate import sample
from genrun.runner.bench.sleepy import SleepyModel
from genrun.solvers import Solver
from genrun.solvers import registry as solvers

MODEL = "demo-image"
CAPTION = "a large red circle at the center on gray"


@dataclass(frozen=True)
class Timing:
    """Times of one sample on rank 0.

    Attributes:
        solver: its name.
        ranks: of the group; each solver's workers.
        rounds: parallel model calls.
        nfe: model evaluations on all ranks.
        loop_s: the pipeline's loop, from its first model call to the final latents.
        model_s: of these, asleep in the model.
        exchange_s: of these, gathering outputs, which includes waiting for other ranks.
        cpu_s: processor time of rank 0 in the loop.
        setup_s: the pipeline's call before its loop, which plain diffusers needs as well; prompts are encoded already.
    """

    solver: str
    ranks: int
    rounds: int
    nfe: int
    loop_s: float
    model_s: float
    exchange_s: float
    cpu_s: float
    setup_s: float


@dataclass
class TimedExchange:
    """An exchange with a clock."""

    inner: Exchange
    elapsed_s: float = 0.0
    rank: int = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.rank, self.size = self.inner.rank, self.inner.size

    def begin(self, like: Tensor, capacity: int) -> None:
        """Begin, and note the time."""
        with self._timed():
            self.inner.begin(like, capacity)

    def plan(self, owners: Sequence[int]) -> None:
        """Plan."""
        self.inner.plan(owners)

    def gather(
        self, outputs: Sequence[Tensor], count: int, check: int, notes: Notes = NOTHING
    ) -> tuple[list[Tensor], Notes]:
        """Gather, and note the time."""
        with self._timed():
            return self.inner.gather(outputs, count, check, notes)

    def end(self) -> None:
        """End."""
        self.inner.end()

    def abort(self) -> None:
        """Abort."""
        self.inner.abort()

    @contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.elapsed_s += time.perf_counter() - started


def measure(exchange: Exchange, latency_s: float, steps: int, names: Sequence[str], repeats: int) -> None:
    """Time every solver, after one call without sleep; rank 0 prints."""
    adapter = adapters.get(MODEL)
    pipe = load(adapter, None, dtype=None, device="cpu")
    model = SleepyModel()
    pipe.transformer.forward = model
    with encode_once(pipe):
        for name in names:
            solver = build(name, exchange.size)
            for repeat in range(-1, repeats):
                model.latency_s = latency_s if repeat >= 0 else 0.0
                request = SamplingRequest(CAPTION, max(repeat, 0), {"steps": steps})
                timed = TimedExchange(exchange)
                timing = time_one(
                    name, model, timed, lambda r=request, s=solver, t=timed: sample(pipe, adapter, r, s, t)
                )
                if exchange.rank == 0 and repeat >= 0:
                    print(json.dumps(asdict(timing)), flush=True)


def time_one(name: str, model: SleepyModel, exchange: TimedExchange, call: Callable[[], Any]) -> Timing:
    """Time one pipeline call that all ranks begin together."""
    dist.barrier()
    model.reset()
    called = time.perf_counter()
    solution = call().solution
    ended, cpu_ended = time.perf_counter(), time.process_time()
    looped, cpu_looped = model.first or (ended, cpu_ended)
    return Timing(
        solver=name,
        ranks=exchange.size,
        rounds=solution.rounds,
        nfe=solution.nfe,
        loop_s=ended - looped,
        model_s=model.slept_s,
        exchange_s=exchange.elapsed_s,
        cpu_s=cpu_ended - cpu_looped,
        setup_s=looped - called,
    )


def build(name: str, workers: int) -> Solver:
    """Make a solver at its default options, with one point a round for each rank."""
    kind = solvers.get(name)
    return kind(workers=workers) if any(option.name == "workers" for option in fields(kind)) else kind()


def main() -> None:
    """Run one rank from its command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--latency-ms", type=float, default=50.0, help="of a model evaluation (default: 50)")
    parser.add_argument("--steps", type=int, default=50, help="N (default: 50)")
    parser.add_argument("--repeats", type=int, default=1, help="samples of each solver (default: 1)")
    parser.add_argument("--solvers", default=",".join(solvers.names()), help="names, with commas (default: all)")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    try:
        measure(GroupExchange(), chosen.latency_ms / 1000, chosen.steps, chosen.solvers.split(","), chosen.repeats)
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
