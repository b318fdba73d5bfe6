"""K of jobs that leave it open: the time ranks of the mesh; and runs of 0.1.0, which had 8."""

from __future__ import annotations

from typing import Any

import pytest

from genrun.runner.api.jobs import load_job, plan
from genrun.runner.job import restore

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


def test_a_number_stays_and_a_wrong_one_is_told() -> None:
    job = {"model": "demo-image", "prompts": ["a"], "launch": TORCHRUN, "parallel": {"time": 2}}
    assert plan(load_job({**job, "solver": {"kind": "ropa", "workers": 8}}))[0].solver["workers"] == 8
    both = plan(load_job({**job, "matrix": {"solver": ["ropa", "sequential", {"kind": "ropa", "workers": 5}]}}))
    assert [item.solver.get("workers") for item in both] == [2, None, 5]
    with pytest.raises(Exception, match=r"solver\.workers"):
        load_job({**job, "solver": {"kind": "ropa", "workers": "many"}})
