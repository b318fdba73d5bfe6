"""What collocation adds to the contract: nodes by curvature, secants, and an error that the tolerance bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from genrun.solvers import FlowProblem, drive
from genrun.solvers.collocation import Collocation, has_stages
from genrun.solvers.contract import Point
from genrun.solvers.nodes import Spacing
from genrun.solvers.response import Response
from tests.numerics.worlds import Recorder, flow, mixture

SIZE = 64


def vector(*values: float) -> Tensor:
    return torch.tensor([[*values, *([0.0] * (SIZE - len(values)))]])


def test_a_model_that_answers_moves_by_a_matrix_is_predicted_along_seen_directions() -> None:
    response = Response(floor=1e-6)
    response.begin_round(0)
    response.observe(0, vector(2.0), vector(-8.0, 1.0))
    response.observe(1, vector(0.0, 1.0), vector(0.0, 3.0))
    answer = response.at(0).answer(vector(1.0, 1.0))
    assert answer[0, 0] == pytest.approx(-4.0, rel=0.02)
    assert answer[0, 1] == pytest.approx(3.5, rel=0.02)


def test_a_move_that_no_secant_saw_gets_the_base_gain() -> None:
    response = Response(floor=1e-6)
    response.begin_round(0)
    response.observe(0, vector(2.0), vector(-8.0))
    assert torch.allclose(response.at(0).answer(vector(0.0, 0.0, 1.0)), vector(0.0, 0.0, 0.3))
    assert not response.at(0).answer(vector()).any()


def test_moves_below_the_dtype_s_resolution_teach_nothing() -> None:
    response = Response(floor=1e-3)
    response.observe(0, vector(1e-4), vector(5.0))
    assert not response.secants


def gaps(curvature: float, workers: int = 2) -> int:
    spacing = Spacing(flow(60), workers, tolerance=0.05)
    for index in (10, 12, 14):
        spacing.settle(index, torch.full((1, 4), 0.5 * curvature * index**2))
    return spacing.after(14) - 14


def test_gaps_shorten_where_the_prediction_bends() -> None:
    assert gaps(0.0) == 60 // (3 * 2)
    assert gaps(0.0) > gaps(0.05) > gaps(0.5) >= 1
    assert gaps(100.0) == 1


def test_last_step_is_always_a_node() -> None:
    problem = flow()
    recorder = Recorder(problem, mixture())
    drive(Collocation(workers=2), problem, recorder)
    assert recorder.indices[-1][-1] == problem.num_steps - 1


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
@pytest.mark.parametrize("tolerance", [0.01, 0.05, 0.2])
def test_error_of_a_guided_mixture_is_below_the_tolerance(workers: int, tolerance: float) -> None:
    problem = flow()
    reference = drive(Collocation(workers=workers, tolerance=0), problem, Recorder(problem, mixture()))
    solution = drive(Collocation(workers=workers, tolerance=tolerance), problem, Recorder(problem, mixture()))
    assert math.sqrt(float((solution.x - reference.x).square().mean())) <= tolerance
    assert solution.rounds < reference.rounds


def test_a_stiff_model_takes_less_than_half_the_rounds_of_an_exact_run() -> None:
    """X0 = -6 x along the trajectory: what guidance does to the models that ship with genrun."""
    problem = FlowProblem(
        [1 - i / 50 for i in range(51)], torch.randn(1, SIZE, generator=torch.Generator().manual_seed(0))
    )
    target = torch.linspace(-1, 1, SIZE)

    def evaluate(points: Sequence[Point]) -> list[Tensor]:
        return [problem.from_x0(p.index, p.x, target - 6 * problem.sigma(p.index) * (p.x - target)) for p in points]

    held = drive(Collocation(tolerance=0.0), problem, evaluate)
    free = drive(Collocation(tolerance=0.02), problem, evaluate)
    assert float((held.x - free.x).square().mean().sqrt()) <= 0.02
    assert free.rounds <= 0.5 * held.rounds


def test_schedulers_with_stages_keep_every_step() -> None:
    staged = FlowProblem([1.0, 0.8, 0.8, 0.5, 0.5, 0.0], torch.zeros(1, 4))
    assert has_stages(staged)
    assert not has_stages(flow())
