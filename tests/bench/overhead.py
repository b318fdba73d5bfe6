"""What the time-parallel engine adds to the model: wall time against rounds x latency, on gloo ranks.

    OMP_NUM_THREADS=1 python -m torch.distributed.run --standalone --nproc-per-node=4 -m tests.bench.overhead

The model of a tiny stock pipeline is replaced by one that sleeps 50 ms and answers in closed form, so that all else is ours
and the pipeline's. Not a test: times belong to the machine they are taken on.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import genrun
from genrun.adapters.exchange import GroupExchange
from genrun.solvers import registry
from tests.tiny import build, call_kwargs


def sleepy(pipe: Any, latency_s: float) -> None:
    """Replace the transformer's forward: sleep, then predict a velocity that bends with time."""

    def forward(hidden_states: Tensor, timestep: Tensor, **_: Any) -> tuple[Tensor]:
        time.sleep(latency_s)
        phase = (timestep.float() / 1000).view(-1, 1, 1, 1)
        return (hidden_states * 0.5 - torch.tanh(hidden_states * (1 - phase)),)

    pipe.transformer.forward = forward


def main() -> None:
    """Time every solver once, after one warm-up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency-ms", type=float, default=50.0)
    parser.add_argument("--steps", type=int, default=50)
    arguments = parser.parse_args()
    dist.init_process_group("gloo")
    exchange, pipe = GroupExchange(), build("sd3")
    call = {**call_kwargs("sd3"), "num_inference_steps": arguments.steps}
    call |= {"height": 64, "width": 64, "max_sequence_length": 16}
    sleepy(pipe, 0.0)
    with genrun.parallelize(pipe, "paradigms", exchange=exchange):
        pipe(**call)
    sleepy(pipe, arguments.latency_ms / 1000)
    for name in registry.names():
        kind = registry.get(name)
        solver = kind() if name == "sequential" else kind(workers=exchange.size)
        dist.barrier()
        started = time.monotonic()
        with genrun.parallelize(pipe, solver, exchange=exchange) as run:
            pipe(**{**call, "generator": torch.Generator().manual_seed(0)})
        elapsed_s, rounds = time.monotonic() - started, run.solution.rounds
        if exchange.rank == 0:
            ideal_s = rounds * arguments.latency_ms / 1000
            row = {"solver": name, "ranks": exchange.size, "rounds": rounds, "wall_s": round(elapsed_s, 3)}
            print(json.dumps({**row, "ratio": round(elapsed_s / ideal_s, 3)}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
