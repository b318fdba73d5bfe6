"""The table of solver x scheduler: every cell is the plain scheduler's own loop, bit for bit, on closed-form models."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from genrun.adapters.scheduler.noise import NoiseLevels, noise_levels
from genrun.adapters.scheduler.replay import Lane, Replay
from genrun.solvers import registry, solve
from genrun.solvers.trajectory import same_history
from tests.numerics.worlds import Recorder, mixture
from tests.tiny.schedulers import SCHEDULERS, build_scheduler

PARALLEL = tuple(name for name in registry.names() if name != "sequential")
EVERY = tuple(name for names in SCHEDULERS.values() for name in names)
EACH_KIND = ("ddim", "heun", "unipc", "ddpm", "flow-euler")
"""Of one step, of stages, with a memory, with noise, and on another grid."""
SEED = 3
DENOISE = mixture()


def prepared(name: str, num_steps: int) -> Any:
    """A scheduler with its grid set, as a pipeline would."""
    scheduler: Any = build_scheduler(name)
    if num_steps == scheduler.config.num_train_timesteps:  # an offset grid has no room for every step
        scheduler = type(scheduler).from_config(scheduler.config, steps_offset=0)
    scheduler.set_timesteps(num_steps)
    scheduler.is_scale_input_called = True
    return scheduler


def first_latents(scheduler: Any) -> Tensor:
    scale = float(getattr(scheduler, "init_noise_sigma", 1.0))
    return torch.randn(1, 16, generator=torch.Generator().manual_seed(0)) * scale


def model(levels: NoiseLevels, index: int, x: Tensor) -> Tensor:
    return levels.from_x0(index, x, DENOISE(x, levels.alphas[index], levels.sigmas[index]))


@cache
def plain(name: str, num_steps: int) -> Tensor:
    """What the scheduler makes in a loop of its own."""
    scheduler = prepared(name, num_steps)
    levels, x, generator = noise_levels(scheduler), first_latents(scheduler), torch.Generator().manual_seed(SEED)
    for index, timestep in enumerate(scheduler.timesteps):
        arguments = {"generator": generator} if "generator" in scheduler.step.__code__.co_varnames else {}
        x = scheduler.step(model(levels, index, x), timestep, x, **arguments, return_dict=False)[0]
    return x


def lane(name: str, num_steps: int) -> Lane:
    """The same, as a solver's problem."""
    scheduler = prepared(name, num_steps)
    x_start = first_latents(scheduler)
    replay = Replay(scheduler, x_start, torch.zeros_like(x_start), torch.Generator().manual_seed(SEED))
    return Lane(replay, noise_levels(scheduler), x_start, 0)


@pytest.mark.unit_part(scheduler=EACH_KIND)
@pytest.mark.parametrize("scheduler", EVERY)
@pytest.mark.parametrize("solver", PARALLEL)
def test_every_solver_is_exact_on_every_scheduler(solver: str, scheduler: str) -> None:
    problem = lane(scheduler, 10)
    solution = solve(problem, Recorder(problem, DENOISE), solver, workers=4, tolerance=0.0)
    assert torch.equal(solution.x, plain(scheduler, 10))
    assert solution.rounds <= problem.num_steps


@pytest.mark.e2e
@pytest.mark.parametrize("solver", ["paradigms", "collocation"])
def test_solvers_are_exact_on_a_thousand_steps_of_ddpm(solver: str) -> None:
    problem = lane("ddpm", 1000)
    solution = solve(problem, Recorder(problem, DENOISE), solver, workers=2, tolerance=0.0)
    assert problem.num_steps == 1000
    assert torch.equal(solution.x, plain("ddpm", 1000))


@pytest.mark.unit_part(scheduler=EACH_KIND)
@pytest.mark.parametrize("scheduler", EVERY)
@pytest.mark.parametrize("solver", ["paradigms", "ropa", "chords", "srds"])
def test_every_kind_of_solver_saves_rounds_on_every_scheduler(solver: str, scheduler: str) -> None:
    """Also where the scheduler's memory carries the state, and a correction must not be made twice."""
    problem = lane(scheduler, 30)
    solution, expected = solve(problem, Recorder(problem, DENOISE), solver), plain(scheduler, 30)
    assert solution.rounds <= 0.7 * problem.num_steps
    assert (solution.x - expected).square().mean().sqrt() <= 0.15 * expected.std()


@pytest.mark.parametrize("scheduler", ["ddim", "dpm-2m", "unipc", "euler", "flow-euler", "flow-unipc", "flow-dpm-2m"])
def test_a_moved_state_moves_the_next_by_the_ratio_of_the_noise_levels(scheduler: str) -> None:
    """X0 held; also where the memory carries the state, which is moved with it."""
    problem, levels = lane(scheduler, 12), noise_levels(prepared(scheduler, 12))
    x, history = problem.x_start, problem.begin()
    for index in range(3):
        x, history = problem.step(index, x, model(levels, index, x), history)
    x0, change = problem.predict_x0(3, x, model(levels, 3, x)), torch.ones_like(x)
    moved, memory = x + change, problem.moved(3, history, change)
    plainly, _ = problem.step(3, x, problem.from_x0(3, x, x0), history)
    stepped, _ = problem.step(3, moved, problem.from_x0(3, moved, x0), memory)
    assert torch.allclose(stepped - plainly, change * (problem.sigma(4) / problem.sigma(3)), atol=1e-4)
    assert problem.carries(3) == ("unipc" in scheduler) == (memory is not history)


@pytest.mark.parametrize("scheduler", ["ddim", "dpm-2m", "unipc"])
def test_histories_are_compared_by_value(scheduler: str) -> None:
    problem = lane(scheduler, 12)
    output = torch.ones_like(problem.x_start)
    histories = [problem.step(0, problem.x_start, output * scale, problem.begin())[1] for scale in (1, 1, 2)]
    assert same_history(histories[0], histories[1])
    assert same_history(histories[0], histories[2]) == (scheduler == "ddim")
    assert same_history(histories[0], problem.begin()) == (scheduler == "ddim")
    assert not same_history(object(), object())
