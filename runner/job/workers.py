"""K of a solver whose job leaves it open, or says `auto`: the ranks that share an item's rounds, 1 in one process.

More points a round than ranks that evaluate them cost more than they save: in one process a round of eight takes as long as
eight steps. So K follows the mesh, once, when the job is read; it is part of an item's id from then on.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from genrun.runner.job.registries import RegistryLike
from genrun.runner.job.schema import LaunchSpec, ParallelSpec
from genrun.runner.job.tree import Value, put

AUTO = "auto"
OF_0_1 = 8
"""K of jobs that said none, up to 0.1.0."""


def with_workers(root: Value, registry: RegistryLike, kind: str, workers: int) -> Value:
    """Return a job with K filled in where its solver takes one, and it says none or `auto`."""
    section = root.get("solver")
    if section is not None and not section.is_mapping and section.data is not None:
        return root
    named = None if section is None else section.get("kind")
    kind = named.data if named is not None and isinstance(named.data, str) else kind
    if kind not in registry.names() or "workers" not in {each.name for each in dataclasses.fields(registry.get(kind))}:
        return root
    given = None if section is None else section.get("workers")
    if given is not None and (given.wrong is not None or given.data not in (None, AUTO)):
        return root
    origin = root.origin if given is None else given.origin
    return put(root, ("solver", "workers"), Value(workers, origin, None if given is None else given.key))


def time_ranks(
    launch: LaunchSpec,
    parallel: ParallelSpec,
    objective: Literal["throughput", "latency"],
    items: int,
) -> int:
    """Return how many ranks, or slots of ranks, are to share the points of an item's rounds.

    With `parallel.time: auto`, as many as each item gets where it is to be soonest, or where there are fewer items than
    slots; else 1, as every slot then makes items of its own.
    """
    if launch.kind == "inline":
        return 1
    if parallel.time != AUTO:
        return parallel.time
    ranks = ranks_of(launch)
    slots = (ranks or 1) // (parallel.cfg * parallel.ring * parallel.ulysses)
    if parallel.data != AUTO:
        return max(1, slots // parallel.data)
    if objective == "latency":
        return max(1, slots)
    return 1 if items >= slots else max(1, slots // max(1, items))


def ranks_of(launch: LaunchSpec) -> int | None:
    """Return the ranks that the section `launch` asks for, or None where it leaves them open."""
    if launch.processes != AUTO:
        return launch.processes
    gpus = gpus_of(launch)
    return launch.nodes * gpus if launch.kind == "slurm" and gpus else None


def gpus_of(launch: LaunchSpec) -> int:
    """Return the GPUs of a node: "h200:8" is 8."""
    return int(str(launch.gpus).rpartition(":")[2])
