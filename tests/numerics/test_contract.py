"""What every solver promises, by number in the design's contract. A new solver is covered by being registered."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from genrun.solvers import NonFiniteError, Point, drive, registry, solve
from tests.numerics.worlds import PROBLEMS, Recorder, bifurcation, flow, mixture, stiff

PARALLEL = tuple(name for name in registry.names() if name != "sequential")
EXACT = {"tolerance": 0.0}
WORLDS = {"mixture": mixture(), "bifurcation": bifurcation(), "stiff": stiff()}
LEAST_SPEEDUP = {"chords": 2, "srds": 2}
"""With 8 workers on 50 smooth steps: 3, but for the two whose fine steps, one a round in each of eight stretches, leave no
room for it. CHORDS' fastest core alone ends in round 17."""


@cache
def expected(kind: str, world: str) -> Tensor:
    return reference(PROBLEMS[kind](), WORLDS[world])


def reference(problem: Any, denoise: Any) -> Tensor:
    return solve(problem, Recorder(problem, denoise), "sequential").x


@pytest.mark.parametrize("solver", PARALLEL)
@pytest.mark.parametrize("kind", PROBLEMS)
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("workers", [1, 3, 8, 30])
def test_tolerance_zero_is_the_sequential_result_bit_for_bit(solver: str, kind: str, world: str, workers: int) -> None:
    problem, denoise = PROBLEMS[kind](), WORLDS[world]
    solution = solve(problem, Recorder(problem, denoise), solver, workers=workers, **EXACT)
    assert torch.equal(solution.x, expected(kind, world))
    assert solution.rounds <= problem.num_steps
    assert solution.skipped == 0


@pytest.mark.parametrize("solver", registry.names())
@pytest.mark.parametrize("kind", PROBLEMS)
def test_front_moves_at_least_one_step_a_round_and_is_asked_first(solver: str, kind: str) -> None:
    problem = PROBLEMS[kind]()
    recorder = Recorder(problem, mixture())
    solution = drive(registry.get(solver)(), problem, recorder)
    fronts = (0, *solution.fronts)
    assert all(after > before for before, after in pairwise(fronts))
    assert fronts[-1] == problem.num_steps
    assert [asked[0] for asked in recorder.indices] == list(fronts[:-1])


@pytest.mark.parametrize("solver", registry.names())
def test_reported_cost_is_what_was_asked(solver: str) -> None:
    problem = flow(30)
    recorder = Recorder(problem, mixture())
    chosen = registry.get(solver)()
    solution = drive(chosen, problem, recorder)
    assert solution.rounds == len(recorder.rounds) == len(solution.fronts) == len(solution.residuals)
    assert solution.nfe == sum(len(points) for points in recorder.rounds)
    assert max(len(points) for points in recorder.rounds) <= chosen.workers
    assert not any(same(a, b) for asked in recorder.rounds for a, b in combinations(asked, 2))
    unseen = problem.num_steps - len({i for asked in recorder.indices for i in asked})
    assert solution.skipped == unseen


def same(a: Point, b: Point) -> bool:
    return a.index == b.index and torch.equal(a.x, b.x)


@pytest.mark.parametrize("solver", registry.names())
def test_first_round_asks_for_x_start_only(solver: str) -> None:
    problem = flow()
    recorder = Recorder(problem, mixture())
    drive(registry.get(solver)(), problem, recorder)
    assert recorder.indices[0][0] == 0
    assert all(torch.equal(point.x, problem.x_start) for point in recorder.rounds[0])


@pytest.mark.parametrize("solver", PARALLEL)
@pytest.mark.parametrize("kind", PROBLEMS)
def test_smooth_trajectory_takes_fewer_rounds_and_stays_close(solver: str, kind: str) -> None:
    problem, denoise = PROBLEMS[kind](50), mixture()
    solution = solve(problem, Recorder(problem, denoise), solver, tolerance=0.03)
    expected = reference(problem, denoise)
    assert solution.rounds <= problem.num_steps // LEAST_SPEEDUP.get(solver, 3)
    assert (solution.x - expected).square().mean().sqrt() <= 0.05 * expected.std()
    assert solution.converged_by == "tolerance"


@pytest.mark.parametrize("solver", PARALLEL)
@pytest.mark.parametrize("step", [1, 7, 19])
def test_garbage_once_at_a_step_delays_but_does_not_change_the_result(solver: str, step: int) -> None:
    """Prefix acceptance: nothing after a state is final before that state is."""
    problem, denoise = flow(), mixture()
    recorder, spoilt = Recorder(problem, denoise), []

    def evaluate(points: Any) -> list[Tensor]:
        outputs = recorder(points)
        for k, point in enumerate(points):
            if k and point.index == step and not spoilt:
                spoilt.append(step)
                outputs[k] = outputs[k] + 10
        return outputs

    solution = solve(problem, evaluate, solver, **EXACT)
    assert torch.equal(solution.x, reference(problem, denoise))


@pytest.mark.parametrize("solver", PARALLEL)
def test_looser_tolerance_never_costs_more_than_exact(solver: str) -> None:
    problem = flow(50)
    rounds = [
        solve(problem, Recorder(problem, mixture()), solver, tolerance=tolerance).rounds for tolerance in (0, 0.01, 0.2)
    ]
    assert rounds[0] >= rounds[1] >= rounds[2]


@pytest.mark.parametrize("solver", PARALLEL)
@pytest.mark.parametrize("budget", [1, 3, 5])
def test_spent_budget_finishes_sequentially_from_the_front(solver: str, budget: int) -> None:
    problem, denoise = flow(50), bifurcation()
    recorder = Recorder(problem, denoise)
    solution = solve(problem, recorder, solver, max_rounds=budget, **EXACT)
    assert solution.converged_by == "sequential"
    assert all(len(asked) == 1 for asked in recorder.indices[budget:])
    assert torch.equal(solution.x, reference(problem, denoise))


@pytest.mark.parametrize("solver", registry.names())
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_output_names_step_and_round(solver: str, bad: float) -> None:
    problem = flow()
    recorder = Recorder(problem, mixture())

    def evaluate(points: Any) -> list[Tensor]:
        outputs = recorder(points)
        return [o * bad if point.index == 1 else o for point, o in zip(points, outputs, strict=True)]

    with pytest.raises(NonFiniteError) as caught:
        drive(registry.get(solver)(), problem, evaluate)
    assert caught.value.step == 1
    assert caught.value.round_number == len(recorder.rounds)
    assert f"step 1 in round {len(recorder.rounds)}" in str(caught.value)


@pytest.mark.parametrize("solver", PARALLEL)
@pytest.mark.parametrize("spoilt", [1, 4])
def test_a_guess_that_cannot_be_evaluated_is_stepped_up_to(solver: str, spoilt: int) -> None:
    problem, denoise = flow(), mixture()
    recorder = Recorder(problem, denoise)

    def evaluate(points: Any) -> list[Tensor]:
        outputs = recorder(points)
        beyond = len(recorder.rounds) >= spoilt
        return [o * float("inf") if beyond and k else o for k, o in enumerate(outputs)]

    solution = solve(problem, evaluate, solver, **EXACT)
    assert torch.equal(solution.x, reference(problem, denoise))
    assert len(solution.fronts) == solution.rounds <= problem.num_steps


@pytest.mark.parametrize("solver", registry.names())
def test_states_are_float32(solver: str) -> None:
    problem = flow()
    recorder = Recorder(problem, mixture())
    solution = drive(registry.get(solver)(), problem, recorder)
    assert {point.x.dtype for points in recorder.rounds for point in points} == {torch.float32}
    assert solution.x.dtype == torch.float32


@pytest.mark.parametrize("solver", registry.names())
def test_evaluating_in_any_order_gives_the_same(solver: str) -> None:
    problem = flow(30)
    recorder = Recorder(problem, mixture())

    def backwards(points: Any) -> list[Tensor]:
        return list(reversed([recorder.output(point) for point in reversed(points)]))

    chosen = registry.get(solver)()
    assert torch.equal(drive(chosen, problem, backwards).x, drive(chosen, problem, recorder).x)


@settings(max_examples=25)
@given(
    solver=st.sampled_from(PARALLEL),
    num_steps=st.integers(1, 30),
    workers=st.integers(1, 40),
    seed=st.integers(0, 1000),
    stiffness=st.floats(0.1, 30),
)
def test_the_sequential_trajectory_is_the_only_fixed_point(
    solver: str, num_steps: int, workers: int, seed: int, stiffness: float
) -> None:
    """Random nonlinear denoisers, smooth to wild: whatever the iterates did, tolerance 0 ends on the same state."""
    problem = flow(num_steps, seed)
    mix = torch.randn(16, 16, generator=torch.Generator().manual_seed(seed)) * stiffness / 4

    def denoise(x: Tensor, alpha: float, sigma: float) -> Tensor:
        return torch.tanh(mix @ x + sigma)

    solution = solve(problem, Recorder(problem, denoise), solver, workers=workers, **EXACT)
    assert torch.equal(solution.x, reference(problem, denoise))
    assert solution.rounds <= num_steps


@pytest.mark.parametrize("solver", registry.names())
def test_sampling_one_does_not_touch_another(solver: str) -> None:
    """Two samples driven in turn, round by round, end as each does alone."""
    chosen, denoise = registry.get(solver)(), mixture()
    problems = [flow(30, seed=1), flow(30, seed=2)]
    alone = [drive(chosen, problem, Recorder(problem, denoise)) for problem in problems]
    runs = [chosen.solve(problem) for problem in problems]
    asked: list[Any] = [next(run) for run in runs]
    ended: dict[int, Any] = {}
    while len(ended) < len(runs):
        for k, run in enumerate(runs):
            if k not in ended:
                try:
                    asked[k] = run.send(Recorder(problems[k], denoise)(asked[k]))
                except StopIteration as stop:
                    ended[k] = stop.value
    for k, solution in enumerate(alone):
        assert torch.equal(ended[k].x, solution.x)
        assert ended[k].fronts == solution.fronts


@pytest.mark.parametrize("solver", registry.names())
def test_inputs_are_left_as_they_were(solver: str) -> None:
    problem = flow()
    before = problem.x_start.clone()
    drive(registry.get(solver)(), problem, Recorder(problem, mixture()))
    assert torch.equal(problem.x_start, before)


@pytest.mark.parametrize("solver", PARALLEL)
def test_every_option_is_documented_and_checked(solver: str) -> None:
    kind = registry.get(solver)
    for option in fields(kind):
        assert f"{option.name}:" in (kind.__doc__ or ""), f"{solver}.{option.name} has no documentation"
    with pytest.raises(ValueError, match="workers: must be at least 1, got 0"):
        kind(workers=0)
    with pytest.raises(ValueError, match="tolerance: must be finite and not negative, got -1"):
        kind(tolerance=-1)
    with pytest.raises(ValueError, match="max_rounds: must be at least 1, got 0"):
        kind(max_rounds=0)


def test_a_point_is_a_value() -> None:
    x = torch.zeros(2)
    assert Point(1, x) == Point(1, x)
