"""Units of a tolerance: one step's noise as diffusers has it, the noise level, the latents' own, and their deviation."""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise
from typing import Any

import pytest
import torch

from genrun.adapters.scheduler.noise import noise_levels
from genrun.solvers import registry, solve
from genrun.solvers.problems import VPProblem
from genrun.solvers.window import Acceptance, Scale, step_deviation
from tests.numerics.worlds import Recorder, diffusion, flow, mixture

SCALED = tuple(name for name in registry.names() if hasattr(registry.get(name), "scale"))


@pytest.mark.parametrize("kind", ["DDPMScheduler", "DDIMScheduler"])
def test_a_step_is_the_variance_that_diffusers_adds_in_it(kind: str) -> None:
    scheduler: Any = getattr(import_module("diffusers"), kind)(timestep_spacing="trailing")
    scheduler.set_timesteps(20)
    levels = noise_levels(scheduler)
    problem = VPProblem(levels.alphas, levels.sigmas, torch.zeros(4), "epsilon")
    for index, timestep in enumerate(scheduler.timesteps[:-1]):
        given = (timestep, timestep - 50) if kind == "DDIMScheduler" else (timestep,)
        assert step_deviation(problem, index) == pytest.approx(float(scheduler._get_variance(*given)) ** 0.5, rel=1e-4)
    assert step_deviation(problem, 19) == step_deviation(problem, 20) == 0


def test_the_other_units_are_what_their_names_say() -> None:
    problem, change = flow(10), torch.full((16,), 0.25)
    cases: list[tuple[Scale, int, float]] = [("absolute", 3, 1.0), ("noise", 3, problem.sigma(3)), ("noise", 10, 0.1)]
    for scale, index, unit in cases:
        settled = Acceptance(problem, 0.25 / unit, scale)
        assert settled(index, change) and not settled(index, 1.001 * change)
    rmse = Acceptance(problem, 0.1, "rmse")
    rmse.learn(torch.tensor([2.0, -2.0] * 8))
    assert rmse.unit(3) == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("solver", SCALED)
@pytest.mark.parametrize("scale", ["step", "noise", "absolute", "rmse"])
def test_a_larger_tolerance_takes_no_more_rounds_in_any_unit(solver: str, scale: str) -> None:
    rounds = []
    for tolerance in (0.0, 0.02, 0.3):
        found = [
            solve(problem, Recorder(problem, mixture()), solver, workers=6, tolerance=tolerance, scale=scale).rounds
            for problem in (flow(30, seed=0), flow(30, seed=1), diffusion(30, seed=2))
        ]
        rounds.append(sum(found))
    assert all(before >= after for before, after in pairwise(rounds))
    with pytest.raises(ValueError, match="scale"):
        registry.get(solver)(scale="sigma")
