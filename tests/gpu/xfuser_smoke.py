"""On two GPUs: torchrun --nproc-per-node=2 -m tests.gpu.xfuser_smoke [ring|ulysses]

Compares tiny Flux and Wan under xfuser with one rank, in bfloat16, and prints the largest difference.
"""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from genrun.adapters.parallel.enable import enable_parallelism
from genrun.adapters.parallel.slot import Slot
from genrun.adapters.parallel.support import AXES
from tests.tiny import build, call_kwargs, latents_of

TOLERANCE = 0.05
"""Of bfloat16 over a few steps, in units of the largest value."""


def main(axis: str) -> int:
    """Return 0 when both models agree with one rank."""
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl")
    sizes = {"ring": 1, "ulysses": 1, axis: 2}
    mesh = init_device_mesh("cuda", (1, 1, 1, sizes["ring"], sizes["ulysses"]), mesh_dim_names=AXES)
    worst = 0.0
    for family in ("flux", "wan21"):
        pipe = build(family, torch.bfloat16).to("cuda")
        alone = latents_of(pipe(**call_kwargs(family)))
        enable_parallelism(pipe, Slot(mesh, **sizes, backend="xfuser"))
        spread = latents_of(pipe(**call_kwargs(family)))
        distance = float((spread - alone).abs().max() / alone.abs().max())
        worst = max(worst, distance)
        if dist.get_rank() == 0:
            print(f"{family} {axis}: {distance:.2g}")
    dist.destroy_process_group()
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "ulysses"))
