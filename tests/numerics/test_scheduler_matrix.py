"""Every scheduler of diffusers, in a pipeline's loop: solvers at tolerance 0 are the plain loop, bit for bit."""

from __future__ import annotations

import inspect
import re
from collections import deque
from collections.abc import Callable
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import genrun
from genrun.adapters.errors import RefusedError
from genrun.adapters.scheduler.noise import noise_levels
from tests.tiny.loops import ELSEWHERE, FLOW, MATRIX, STOCHASTIC, TinyLoop, df

# Diffusers' own, on numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")

SOLVERS: dict[str, dict[str, Any]] = {
    "sequential": {},
    "ropa": {"workers": 3, "tolerance": 0.0},
    "collocation": {"workers": 3, "exact": True, "tolerance": 0.0},
    "chords": {"workers": 3, "tolerance": 0.0},
}
EACH_KIND = [
    "cogvideox-dpm",
    "ddim",
    "ddim-thresholding",
    "ddpm-learned",
    "deis-flow",
    "dpm-2m",
    "dpm-single-sde",
    "edm-dpm-sde",
    "euler-ancestral",
    "flow-euler",
    "flow-heun",
    "heun",
    "ipndm",
    "pndm",
    "sa-solver",
    "tcd",
    "unipc",
]
"""One of each class that steps in a way of its own."""
BROWNIAN = {"CosineDPMSolverMultistepScheduler", "DPMSolverSDEScheduler"}
"""Classes that need torchsde."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sampled(name: str, solver: str, seed: int = 3, *, passes_generator: bool = True, **call: Any) -> Tensor:
    loop = TinyLoop(MATRIX[name](), passes_generator=passes_generator)
    with genrun.parallelize(loop, solver, **SOLVERS[solver]):
        return loop(**{"generator": seeded(seed), **call})


@pytest.mark.unit_part(name=EACH_KIND)
@pytest.mark.parametrize("name", MATRIX)
def test_solvers_at_tolerance_zero_are_the_plain_loop(name: str) -> None:
    plain = TinyLoop(MATRIX[name]())(generator=seeded(3))
    assert bool(plain.isfinite().all())
    for solver in SOLVERS:
        assert torch.equal(sampled(name, solver), plain), solver


def test_every_scheduler_class_of_diffusers_is_in_the_matrix_or_has_a_reason_not_to_be() -> None:
    there = {name for name in dir(df) if re.fullmatch(r"[A-Z]\w+Scheduler", name)}
    covered = {type(make()).__name__ for make in MATRIX.values()}
    assert there - covered - set(ELSEWHERE) - BROWNIAN - {"FlaxScheduler"} == set()
    assert covered <= there


@pytest.mark.parametrize("name", STOCHASTIC)
def test_noise_is_of_seed_and_step_even_where_the_loop_keeps_its_generator_to_itself(name: str) -> None:
    runs = {}
    for at, solver in enumerate(SOLVERS):
        torch.manual_seed(at)  # what other items have left behind
        torch.randn(at)
        runs[solver] = sampled(name, solver, 5, passes_generator=False)
    first = runs.pop("sequential")
    assert all(torch.equal(first, other) for other in runs.values())
    assert not torch.equal(first, sampled(name, "sequential", 6, passes_generator=False))


@pytest.mark.parametrize("name", ["dpm-flow-sde", "flow-lcm", "euler-ancestral"])
def test_seeds_differ_in_noise_and_not_only_in_their_start(name: str) -> None:
    loop = TinyLoop(MATRIX[name](), passes_generator=False)
    start = torch.ones(1, 3, 4, 4)
    with genrun.parallelize(loop, "sequential"):
        first, other = (loop(generator=seeded(seed), latents=start) for seed in (5, 6))
    assert not torch.equal(first, other)


def test_the_global_noise_is_left_as_it_was() -> None:
    torch.manual_seed(8)
    before = torch.get_rng_state()
    sampled("flow-lcm", "ropa", passes_generator=False)
    assert torch.equal(torch.get_rng_state(), before)


GENERATORS: dict[str, Callable[[], Any]] = {
    "one": lambda: seeded(4),
    "two": lambda: [seeded(4), seeded(9)],
    "one-twice": lambda: [seeded(4)] * 2,
    "global": lambda: None,
}


@pytest.mark.parametrize("given", GENERATORS)
@pytest.mark.parametrize("name", ["ddpm", "euler-ancestral", "ddim"])
def test_calls_in_a_row_draw_on_from_where_the_last_has_left_their_generator(name: str, given: str) -> None:
    loop = TinyLoop(MATRIX[name]())

    def calls() -> Tensor:
        generator = GENERATORS[given]()
        torch.manual_seed(6)
        return torch.cat([loop(generator=generator, batch=2), loop(generator=generator, batch=2)])

    with torch.random.fork_rng(devices=[]):
        plain = calls()
        for solver, options in SOLVERS.items():
            with genrun.parallelize(loop, solver, **options):
                assert torch.equal(calls(), plain), solver


def test_noise_of_torch_that_a_loop_draws_beside_its_steps_is_found_too() -> None:
    class Noisy(TinyLoop):
        def model(self, x: Tensor, t: Any) -> Tensor:
            return super().model(x, t) + torch.randn(x.shape)

    loop = Noisy(df.DDPMScheduler())
    with genrun.parallelize(loop, "sequential"), pytest.raises(RefusedError, match="draws noise in its loop"):
        loop()


def test_noise_of_torch_that_a_model_draws_is_found_beside_a_generator_of_the_call() -> None:
    class Noisy(TinyLoop):
        def model(self, x: Tensor, t: Any) -> Tensor:
            return torch.nn.functional.dropout(super().model(x, t), 0.1)

    loop = Noisy(df.FlowMatchEulerDiscreteScheduler())

    def call() -> Tensor:
        torch.manual_seed(6)
        return loop(generator=seeded(3))

    with torch.random.fork_rng(devices=[]):
        plain = call()
        with genrun.parallelize(loop, "sequential"):
            assert torch.equal(call(), plain)
        refusal = pytest.raises(RefusedError, match=r"draws noise in its loop .* use solver sequential")
        with genrun.parallelize(loop, "paradigms", workers=3), refusal:
            call()


def test_noise_that_another_thread_draws_is_no_concern_of_a_loop_with_a_generator() -> None:
    class Beside(TinyLoop):
        def model(self, x: Tensor, t: Any) -> Tensor:
            thread = Thread(target=torch.randn, args=(3,))
            thread.start()
            thread.join()
            return super().model(x, t)

    loop = Beside(df.FlowMatchEulerDiscreteScheduler())
    with torch.random.fork_rng(devices=[]):
        plain = loop(generator=seeded(3))
        with genrun.parallelize(loop, "paradigms", workers=3, tolerance=0.0):
            assert torch.equal(loop(generator=seeded(3)), plain)


@pytest.mark.parametrize("passes_generator", [True, False], ids=["passed", "kept"])
@pytest.mark.parametrize("name", ["ddpm", "flow-lcm", "kdpm2-ancestral", "sa-solver"])
def test_a_sample_of_a_batch_has_the_noise_that_it_has_alone(name: str, *, passes_generator: bool) -> None:
    seeds = (4, 9)
    call = {"generator": [seeded(seed) for seed in seeds], "batch": 2}
    together = sampled(name, "ropa", passes_generator=passes_generator, **call)
    for row, seed in enumerate(seeds):
        alone = sampled(name, "sequential", seed, passes_generator=passes_generator)
        assert torch.allclose(together[row], alone[0], atol=1e-5)


@pytest.mark.parametrize("name", MATRIX)
def test_noise_levels_turn_outputs_into_predictions_and_back(name: str) -> None:
    scheduler = MATRIX[name]()
    scheduler.set_timesteps(8)
    levels, steps = noise_levels(scheduler), len(scheduler.timesteps)
    assert len(levels.sigmas) == len(levels.alphas) == steps + 1
    x, output = torch.full((1, 2), 0.3), torch.full((1, 2), 0.7)
    for index in range(steps):
        again = levels.from_x0(index, x, levels.predict_x0(index, x, output))
        assert torch.allclose(again, output, rtol=1e-3, atol=1e-3), index


@pytest.mark.parametrize("steps", [7, 12])
@pytest.mark.parametrize("workers", [2, 4])
def test_an_error_of_a_stage_is_weighed_by_what_it_does_to_the_step(workers: int, steps: int) -> None:
    """Heun's last step goes by half of the output at the least noise level, where a held prediction says most of it."""
    loop, call = TinyLoop(df.FlowMatchHeunDiscreteScheduler()), {"num_inference_steps": steps, "generator": None}
    start = torch.randn(1, 3, 4, 4, generator=seeded(3))
    plain = loop(**call, latents=start)
    with genrun.parallelize(loop, "collocation", workers=workers) as run:
        assert float((loop(**call, latents=start) - plain).square().mean().sqrt()) < 0.05
    assert run.solution.rounds < 2 * steps - 1


class Remembering(df.FlowMatchEulerDiscreteScheduler):
    """A scheduler of one's own that averages outputs, each in a memory of another kind."""

    kind = "deque"

    def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        super().set_timesteps(*args, **kwargs)
        self.kept: Any = {"deque": deque(maxlen=2), "nested": [[]], "array": np.zeros(1), "object": SimpleNamespace()}[
            self.kind
        ]

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, *, return_dict: bool = True) -> Any:
        kept, last = self.kept, model_output
        if self.kind == "array":
            kept += 1
            last = model_output * float(kept[0]) / 8
        elif self.kind == "object":
            last, kept.last = getattr(kept, "last", last), model_output
        else:
            outputs = kept if self.kind == "deque" else kept[0]
            outputs.append(model_output)
            last = outputs[max(0, len(outputs) - 2)]
        return super().step(0.7 * model_output + 0.3 * last, timestep, sample, return_dict=return_dict)


@pytest.mark.parametrize("kind", ["deque", "nested", "array", "object"])
def test_a_memory_of_any_kind_goes_with_its_step(kind: str) -> None:
    scheduler = Remembering(shift=2.0)
    scheduler.kind = kind
    loop = TinyLoop(scheduler)
    plain = loop(generator=seeded(3))
    for solver, options in SOLVERS.items():
        with genrun.parallelize(loop, solver, **options):
            assert torch.equal(loop(generator=seeded(3)), plain), solver


class Casting(TinyLoop):
    """A model of one dtype, and latents of another."""

    def model(self, x: Tensor, t: Any) -> Tensor:
        return super().model(x.bfloat16(), t)


@pytest.mark.unit_part(name=["heun", "euler"])
@pytest.mark.parametrize("between", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["ddim", "pndm", "cogvideox-dpm", "heun", "dpm-2m", "euler"])
def test_what_a_step_returns_follows_what_a_loop_casts_its_latents_to(name: str, between: torch.dtype) -> None:
    loop = Casting(MATRIX[name]())
    loop.between = between
    for start in (torch.bfloat16, torch.float32):
        call: dict[str, Any] = {"latents": torch.randn(1, 3, 4, 4, generator=seeded(3)).to(start)}
        plain = loop(**call, generator=seeded(4))
        for solver, options in SOLVERS.items():
            with genrun.parallelize(loop, solver, **options):
                made = loop(**call, generator=seeded(4))
            assert made.dtype == plain.dtype
            assert torch.equal(made, plain), (solver, start)


def test_latents_of_more_digits_than_a_solver_keeps_are_refused() -> None:
    loop = Casting(MATRIX["ddim"]())
    for latents, between in ((torch.float64, None), (torch.float32, torch.float64)):
        loop.between = between
        with genrun.parallelize(loop, "sequential"), pytest.raises(RefusedError, match=r"latents are torch\.float64"):
            loop(latents=torch.randn(1, 3, 4, 4, generator=seeded(3)).to(latents))


def test_a_loop_with_gradients_is_followed_without_them() -> None:
    class Trained(TinyLoop):
        weight = torch.ones(1, requires_grad=True)

        def model(self, x: Tensor, t: Any) -> Tensor:
            return super().model(x, t) * self.weight

    loop = Trained(MATRIX["ddim"]())
    latents = torch.randn(1, 3, 4, 4, generator=seeded(3))
    plain = loop(latents=latents).detach()
    for solver, options in SOLVERS.items():
        with torch.enable_grad(), genrun.parallelize(loop, solver, **options):
            made = loop(latents=latents)
        assert torch.equal(made, plain) and not made.requires_grad, solver
    with torch.enable_grad(), genrun.parallelize(loop, "collocation", workers=2):
        loop(latents=latents)


def test_casts_of_samples_with_generators_of_their_own_are_followed() -> None:
    loop = Casting(MATRIX["ddpm"]())
    loop.between = torch.float32
    latents = torch.randn(2, 3, 4, 4, generator=seeded(3)).bfloat16()
    plain = loop(latents=latents, batch=2, generator=[seeded(4), seeded(5)])
    for solver, options in SOLVERS.items():
        with genrun.parallelize(loop, solver, **options):
            assert torch.equal(loop(latents=latents, batch=2, generator=[seeded(4), seeded(5)]), plain), solver


def test_a_loop_sees_what_the_real_scheduler_has_and_nothing_else() -> None:
    loop = TinyLoop(df.FlowMatchEulerDiscreteScheduler())
    real = loop.scheduler
    with genrun.parallelize(loop, "ropa"):
        assert not hasattr(loop.scheduler, "scale_model_input")
        for method in ("step", "set_timesteps"):
            assert inspect.signature(getattr(loop.scheduler, method)) == inspect.signature(getattr(real, method))


def test_a_whole_tuple_comes_back_from_the_last_step() -> None:
    """LCM's pipelines decode its second part."""

    seen: list[Any] = []

    def unpacking(scheduler: Any) -> None:
        scheduler.set_timesteps(4)
        x = torch.randn(1, 3, 4, 4, generator=seeded(1))
        generator, denoised = seeded(2), None
        for t in scheduler.timesteps:
            x, denoised = scheduler.step(torch.tanh(x + float(t) / 1000), t, x, generator=generator, return_dict=False)
        seen.append((x, denoised))

    loop = TinyLoop(df.LCMScheduler())
    unpacking(loop.scheduler)
    with genrun.parallelize(loop, "ropa", workers=2, tolerance=0.0):
        unpacking(loop.scheduler)
    for ours, plain in zip(*seen, strict=True):
        assert torch.equal(ours, plain)


def test_a_trailing_grid_with_one_step_too_many_is_refused_before_sampling() -> None:
    loop = TinyLoop(df.DDIMScheduler(timestep_spacing="trailing"))
    message = r"makes 62 steps of 61, the last at t = -1.* nearest that work are 60 and 62"
    with genrun.parallelize(loop, "sequential"), pytest.raises(RefusedError, match=message):
        loop(num_inference_steps=61)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_grid_without_numbers_is_refused_before_sampling() -> None:
    loop = TinyLoop(df.FlowMatchEulerDiscreteScheduler(shift_terminal=0.1))
    message = r"no numbers \(NaN\) for 1 steps.* take more steps, or leave out shift_terminal$"
    with genrun.parallelize(loop, "sequential"), pytest.raises(RefusedError, match=message):
        loop(num_inference_steps=1)


def test_a_grid_that_begins_twice_at_one_timestep_is_refused_before_sampling() -> None:
    loop = TinyLoop(df.UniPCMultistepScheduler(**FLOW | {"flow_shift": 17.0}))
    message = r"UniPCMultistepScheduler has the timestep 999 for the first two of 100"
    with genrun.parallelize(loop, "sequential"), pytest.raises(RefusedError, match=message):
        loop(num_inference_steps=100)
