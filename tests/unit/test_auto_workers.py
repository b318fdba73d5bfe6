"""K of jobs that leave it open: the time ranks of the mesh; and runs of 0.1.0, which had 8."""

from __future__ import annotations

from typing import Any

import pytest

from genrun.runner.api.jobs import load_job, plan
from genrun.runner.cli.output import sharing_advice
from genrun.runner.job import restore
from genrun.runner.job.options import time_ranks
from genrun.runner.job.schema import LaunchSpec, ParallelSpec
from genrun.runner.parallel.mesh import choose

TORCHRUN = {"kind": "torchrun", "processes": 4}


@pytest.mark.parametrize("workers", [{}, {"workers": "auto"}, {"workers": None}])
@pytest.mark.parametrize(
    ("changes", "k"),
    [
        ({}, 1),
        ({"parallel": {"time": 4}}, 4),
        ({"launch": TORCHRUN, "parallel": {"time": 2}}, 2),
        ({"launch": TORCHRUN, "parallel": {"time": "auto"}, "objective": "latency"}, 4),
        ({"launch": TORCHRUN, "parallel": {"time": "auto"}}, 4),
        ({"launch": TORCHRUN, "parallel": {"time": "auto"}, "seeds": [0, 1, 2, 3]}, 1),
        ({"launch": {"kind": "slurm", "gpus": 8}, "parallel": {"time": 8}}, 8),
    ],
)
def test_k_is_the_time_ranks_of_the_mesh(workers: dict[str, Any], changes: dict[str, Any], k: int) -> None:
    loaded = load_job({"model": "demo-image", "prompts": ["a"], "solver": {"kind": "ropa", **workers}, **changes})
    assert [item.solver["workers"] for item in plan(loaded)] == [k] * len(loaded.job.seeds)
    assert loaded.document["solver"]["workers"] == k
    restore(loaded.document, sets=["parallel.data=1"] if "launch" not in changes else [])


@pytest.mark.parametrize(
    ("changes", "k"),
    [
        # Each cell has fewer items than there are slots, and all of them together have not.
        ({"matrix": {"solver": ["ropa", "collocation"], "sampling.steps": [8, 9]}}, 1),
        ({"matrix": {"sampling.steps": [8, 9]}}, 2),
        # A prompt with a seed of its own is one item, whatever seeds the job has.
        ({"prompts": [{"prompt": "a", "seed": 7}], "seeds": [0, 1, 2, 3]}, 4),
    ],
)
def test_k_goes_by_the_items_of_all_cells(changes: dict[str, Any], k: int) -> None:
    job = {"model": "demo-image", "prompts": ["a"], "launch": TORCHRUN, "parallel": "auto", **changes}
    loaded = load_job(job if "solver" in str(changes) else {**job, "solver": "ropa"})
    items = plan(loaded)
    assert {item.solver["workers"] for item in items} == {k}
    assert choose([k] * len(items), 4, "throughput").time == k


@pytest.mark.parametrize(
    ("changes", "k"),
    [
        ({}, 4),
        ({"audit": 1}, 2),
        ({"audit": "100%", "prompts": ["a", "b"]}, 1),
        ({"audit": "50%", "prompts": ["a", "b"]}, 1),
        # Items of the job itself are what is compared with.
        ({"audit": 1, "matrix": {"solver": ["sequential", "ropa"]}}, 2),
        # Two cells share the sequential item, and two models or grids do not.
        ({"audit": 1, "matrix": {"solver": ["paradigms", "ropa"]}}, 1),
        ({"audit": 1, "matrix": {"sampling.steps": [8, 9]}, "launch": {"kind": "torchrun", "processes": 8}}, 2),
        ({"audit": 1, "matrix": {"solver": ["paradigms", "ropa"]}, "launch": {"kind": "torchrun", "processes": 6}}, 2),
    ],
)
def test_k_goes_by_the_items_that_an_audit_adds_too(changes: dict[str, Any], k: int) -> None:
    job = {"model": "demo-image", "prompts": ["a"], "solver": "ropa", "launch": TORCHRUN, "parallel": "auto", **changes}
    if "solver" in changes.get("matrix", {}):
        del job["solver"]
    loaded = load_job(job)
    items = plan(loaded)
    assert {item.solver["workers"] for item in items if "workers" in item.solver} == {k}
    slots = loaded.job.launch.processes
    assert isinstance(slots, int)
    assert choose([k] * len(items), slots, "throughput").time == k


@pytest.mark.parametrize("objective", ["throughput", "latency"])
def test_k_is_a_number_of_ranks_that_share_an_item(objective: Any) -> None:
    for slots in range(1, 25):
        launch, parallel = LaunchSpec(kind="torchrun", processes=slots), ParallelSpec(time="auto")
        for items in range(1, slots + 3):
            k = time_ranks(launch, parallel, objective, items)
            assert choose([k] * items, slots, objective).time == k


@pytest.mark.parametrize(("workers", "ranks"), [(2, 2), (3, 3), (8, 4)])
def test_no_more_ranks_are_advised_than_a_round_has_calls(workers: int, ranks: int) -> None:
    items = plan(load_job({"model": "demo-image", "prompts": ["a"], "solver": {"kind": "ropa", "workers": workers}}))
    assert f"`parallel: {{time: {ranks}}}` shares them among {ranks}." in sharing_advice(items)


def test_a_number_stays_and_a_wrong_one_is_told() -> None:
    job = {"model": "demo-image", "prompts": ["a"], "launch": TORCHRUN, "parallel": {"time": 2}}
    assert plan(load_job({**job, "solver": {"kind": "ropa", "workers": 8}}))[0].solver["workers"] == 8
    both = plan(load_job({**job, "matrix": {"solver": ["ropa", "sequential", {"kind": "ropa", "workers": 5}]}}))
    assert [item.solver.get("workers") for item in both] == [2, None, 5]
    with pytest.raises(Exception, match=r"solver\.workers"):
        load_job({**job, "solver": {"kind": "ropa", "workers": "many"}})
