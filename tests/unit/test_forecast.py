"""Ranks are chosen for a job with a reason, and predicted times agree with what workers do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from genrun.runner.forecast import (
    Cost,
    Observation,
    alternatives,
    calibrate,
    cost_of,
    costs_of,
    keys_of,
    makespan,
    observations,
    observe,
    predict,
)
from genrun.runner.launch.local import mesh_of
from genrun.runner.launch.protocol import LaunchRequest
from genrun.runner.parallel.mesh import Mesh, MeshRequest, choose
from genrun.runner.parallel.team import Solo
from genrun.runner.store.records import Record, SamplerStats
from genrun.runner.store.runs import new_path
from tests.fakes.items import done, make_folder, make_item
from tests.fakes.worker import FakeProducer


@pytest.mark.parametrize(
    ("points", "slots", "objective", "arrangement", "why"),
    [
        ([8] * 9, 4, "throughput", (4, 1), "all share the last 1"),
        ([8] * 8, 4, "throughput", (4, 1), "each makes its own"),
        ([8] * 2, 4, "throughput", (2, 2), "2 items are fewer than 4 slots"),
        ([8], 8, "throughput", (1, 8), "1 items are fewer than 8 slots"),
        ([8] * 9, 4, "latency", (1, 4), "8 points a round take 2 evaluations in a row on 4 ranks"),
        ([2] * 9, 8, "latency", (4, 2), "2 points a round take 1 evaluations in a row on 2 ranks"),
        ([1] * 9, 4, "latency", (4, 1), "one point a round, which several ranks cannot share"),
        ([8] * 9, 1, "latency", (1, 1), "one slot"),
    ],
)
def test_auto_chooses_by_the_objective_and_says_why(
    points: list[int], slots: int, objective: Any, arrangement: tuple[int, int], why: str
) -> None:
    choice = choose(points, slots, objective)
    assert (choice.data, choice.time) == arrangement
    assert why in choice.why


def test_auto_never_chooses_what_could_change_a_bit_but_keeps_what_it_is_told() -> None:
    asked = MeshRequest(time="auto", ulysses=2, objective="latency", points=(8,) * 9)
    assert asked.mesh(8) == Mesh(1, 4, ulysses=2)
    assert MeshRequest(time="auto", objective="latency", points=(8,)).mesh(8) == Mesh(1, 8)
    assert MeshRequest(data=2, time="auto", points=(8,)).mesh(8) == Mesh(2, 4)


def test_torchrun_starts_the_ranks_that_auto_chose() -> None:
    asked = MeshRequest(time="auto", objective="latency", points=(4,) * 9)
    assert mesh_of(LaunchRequest(8, asked, uses_gpus=False)) == Mesh(2, 4)


def per_item(number: int, slots: int) -> float:
    del number
    return Cost(rounds=1, nfe=8, evaluation_s=1.0, seen=1).seconds(slots)


def test_nine_items_on_four_ranks_end_a_quarter_sooner_where_groups_may_join() -> None:
    assert makespan([8] * 9, per_item, 4, 1) == 24
    assert makespan([8] * 9, per_item, 4, 1, elastic=True) == 18


def test_a_group_takes_the_next_item_as_soon_as_it_is_free() -> None:
    assert makespan([1, 1, 1], lambda number, slots: [5.0, 1.0, 1.0][number], 2, 1) == 5


def test_a_round_takes_the_evaluations_of_its_busiest_rank() -> None:
    cost = Cost(rounds=10, nfe=75, evaluation_s=0.5, seen=3)
    assert [cost.seconds(slots) for slots in (1, 2, 4, 8)] == [37.5, 20, 10, 5]
    assert Cost(50, 50, 0.5, 1).seconds(4) == 25


def record_of(time: int = 1, **changes: Any) -> Record:
    stats = SamplerStats(50, rounds=10, nfe=80, fronts=(50,))
    return Record("x", "done", sampler=stats, elapsed_s=40.0, mesh={"time": time}, **changes)


def test_a_record_tells_the_seconds_of_an_evaluation_however_many_ranks_made_it() -> None:
    item = make_item(0, solver={"kind": "ropa", "workers": 8})
    alone, shared = observe(item, record_of()), observe(item, record_of(4))
    assert alone is not None and shared is not None
    assert (alone.evaluation_s, shared.evaluation_s) == (0.5, 2.0)
    assert observe(item, Record("x", "failed", elapsed_s=3.0)) is None


def test_costs_come_from_items_of_the_same_model_size_and_solver_only() -> None:
    item, other = make_item(0), make_item(1, sampling={"steps": 4, "height": 64})
    model, solver = keys_of(item)
    seen = [Observation(model, solver, 4, 4, 2.0), Observation(model, "other solver", 4, 4, 4.0)]
    assert cost_of(item, seen) == Cost(4, 4, 3.0, 1)
    assert cost_of(other, seen) is None
    assert costs_of([item, other], seen) == [Cost(4, 4, 3.0, 1), None]


def test_runs_in_a_folder_are_read_and_strangers_in_it_ignored(tmp_path: Path) -> None:
    folder = make_folder(new_path(tmp_path, "fake"))
    (tmp_path / "fake" / "not-a-run").mkdir()
    for item in folder.items()[:2]:
        done(folder, item)
    found = list(observations(tmp_path))
    assert [(each.rounds, each.nfe) for each in found] == [(2, 6)] * 2
    assert list(observations(tmp_path / "nothing")) == []


def test_a_calibration_is_measured_once_for_each_solver_and_found_again(tmp_path: Path) -> None:
    items = [make_item(0), make_item(1), make_item(2, solver={"kind": "ropa", "workers": 8})]
    producer = FakeProducer({}, Solo(), 0)
    calibrate(items, producer, tmp_path / "runs", lambda text: None)
    assert sorted(producer.made) == sorted([items[0].id, items[2].id])
    assert all(cost is not None and cost.rounds == 2 for cost in costs_of(items, list(observations(tmp_path / "runs"))))


def test_predictions_for_every_arrangement_of_the_same_ranks() -> None:
    items = [make_item(number, solver={"kind": "ropa", "workers": 8}) for number in range(9)]
    costs = [Cost(1, 8, 1.0, 1)] * 9
    found = [predict(items, costs, mesh, elastic=False) for mesh in alternatives(Mesh(4, 1, ulysses=2))]
    assert [(each.mesh.data, each.mesh.time, each.mesh.ulysses) for each in found] == [(4, 1, 2), (2, 2, 2), (1, 4, 2)]
    assert [(each.makespan_s, each.latency_s) for each in found] == [(24, 8), (20, 4), (18, 2)]
