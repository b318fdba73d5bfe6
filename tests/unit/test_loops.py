"""Loops that do more than step: windows of steps, guidance by the step's number, latents changed between two steps."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import genrun
from genrun.adapters.checkpoint.diffusers_source import Loops
from genrun.adapters.errors import CacheError, RefusedError
from genrun.adapters.sampling import parallelize
from genrun.adapters.scheduler.timesteps import TimestepTable
from tests.tiny import build, build_scheduler, call_kwargs, generator, latents_of
from tests.tiny.loops import EACH_WAY, EXACT, FEW, MATRIX, STEPS, Loop, Tiny, TinyLoop, on_ranks

# Untyped on purpose: diffusers fills its namespace at import.
df: Any = import_module("diffusers")


STEPS_OF_MODELS = 6


def picture(size: int = 32) -> Image.Image:
    pixels = np.random.default_rng(4).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def mask(size: int = 32) -> Image.Image:
    image = Image.new("L", (size, size), 0)
    image.paste(255, (0, 0, size // 2, size))
    return image


def check_exact(pipe: Any, call: Callable[[], dict[str, Any]], solvers: dict[str, dict[str, Any]] = FEW) -> None:
    """Compare solvers at tolerance 0 with the plain pipeline; `call` makes the arguments afresh."""
    plain = latents_of(pipe(**call()))
    assert bool(plain.isfinite().all())
    for solver, options in solvers.items():
        with genrun.parallelize(pipe, solver, **options):
            made = latents_of(pipe(**call()))
        assert made.dtype == plain.dtype, solver
        assert torch.equal(made, plain), f"{solver}: {(made.float() - plain.float()).abs().max()}"


def arguments(family: str, **more: Any) -> dict[str, Any]:
    call = {**call_kwargs(family), "num_inference_steps": STEPS_OF_MODELS, **more}
    return {name: value for name, value in call.items() if value is not ...}


def other(kind: str, family: str, dtype: torch.dtype = torch.float32) -> Any:
    """Build another pipeline class from a family's components."""
    pipe = build(family, dtype)
    takes = inspect.signature(getattr(df, kind).__init__).parameters
    made = getattr(df, kind)(**{name: part for name, part in pipe.components.items() if name in takes})
    made.set_progress_bar_config(disable=True)
    return made


CHANGES = {"height": ..., "width": ..., "num_frames": ...}
FROM_PICTURE: dict[str, tuple[str, dict[str, Any]]] = {
    "StableDiffusion3Img2ImgPipeline": ("sd3", {"image": picture(), "strength": 0.7}),
    "FluxImg2ImgPipeline": (
        "flux",
        {"image": picture(), "strength": 0.6, "negative_prompt": ..., "true_cfg_scale": ...},
    ),
    "StableDiffusionImg2ImgPipeline": ("sd2", {**CHANGES, "image": picture(64), "strength": 0.5}),
    "CogVideoXVideoToVideoPipeline": ("cogvideox_ddim", {"num_frames": ..., "video": [picture()] * 9, "strength": 0.7}),
}


@pytest.mark.parametrize("kind", FROM_PICTURE)
def test_a_loop_over_a_window_of_the_timesteps_is_followed(kind: str) -> None:
    family, more = FROM_PICTURE[kind]
    check_exact(other(kind, family), lambda: arguments(family, **more))


@pytest.mark.parametrize("name", ["ddim", "heun", "dpm-2m", "pndm"])
def test_a_window_is_that_of_every_scheduler(name: str) -> None:
    pipe = other("StableDiffusionImg2ImgPipeline", "sd2")
    pipe.scheduler = build_scheduler(name)
    check_exact(pipe, lambda: arguments("sd2", **CHANGES, image=picture(64), strength=0.6))


INPAINTING: dict[str, tuple[str, dict[str, Any]]] = {
    "FluxInpaintPipeline": (
        "flux",
        {"image": picture(), "mask_image": mask(), "strength": 0.8, "negative_prompt": ..., "true_cfg_scale": ...},
    ),
    "StableDiffusionInpaintPipeline": ("sd2", {"image": picture(64), "mask_image": mask(64), "strength": 0.7}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", INPAINTING)
def test_latents_blended_with_a_picture_between_two_steps_are_stepped_as_blended(kind: str, dtype: torch.dtype) -> None:
    family, more = INPAINTING[kind]
    check_exact(other(kind, family, dtype), lambda: arguments(family, **more))


@pytest.mark.parametrize("name", ["euler", "dpm-2m"])
def test_a_blend_reads_the_noise_level_of_the_point_in_work(name: str) -> None:
    pipe = other("StableDiffusionInpaintPipeline", "sd2")
    pipe.scheduler = build_scheduler(name)
    check_exact(pipe, lambda: arguments("sd2", image=picture(64), mask_image=mask(64), strength=0.9))


def test_guidance_that_skips_layers_in_a_window_of_steps_follows_time() -> None:
    window = {"skip_guidance_layers": [0], "skip_layer_guidance_start": 0.2, "skip_layer_guidance_stop": 0.6}
    check_exact(build("sd3"), lambda: arguments("sd3", **window))


def test_a_guider_that_stops_follows_time() -> None:
    pipe = build("hunyuanvideo15")
    guider = pipe.guider

    def call() -> dict[str, Any]:
        pipe.guider = guider.new(
            start=0.2, stop=0.6
        )  # one that has stopped encodes no negative prompt in the next call
        return arguments("hunyuanvideo15")

    check_exact(pipe, call)


@pytest.mark.parametrize("guider", ["AdaptiveProjectedGuidance", "AdaptiveProjectedMixGuidance"])
def test_the_momentum_of_a_guider_steps_with_the_latents(guider: str) -> None:
    pipe = build("hunyuanvideo15")
    options = {"adaptive_projected_guidance_start_step": 2} if "Mix" in guider else {}
    pipe.guider = getattr(df, guider)(adaptive_projected_guidance_momentum=-0.5, **options)
    check_exact(pipe, lambda: arguments("hunyuanvideo15"))


@pytest.mark.unit_part(name=["ddim", "unipc-flow", "heun"])
@pytest.mark.parametrize("name", ["flow-euler", "dpm-2m", "ddim", "unipc-flow", "heun", "euler-ancestral"])
@pytest.mark.parametrize(("begin", "end"), [(0, None), (4, None), (0, 6), (2, 7), (-5, None)])
def test_any_window_is_followed_with_its_counter(name: str, begin: int, end: int | None) -> None:
    pipe = Loop(MATRIX[name]())
    torch.manual_seed(0)
    plain = pipe(begin=begin, end=end)
    for solver, options in FEW.items():
        torch.manual_seed(0)
        with genrun.parallelize(pipe, solver, **options):
            assert torch.equal(pipe(begin=begin, end=end), plain), solver


BLENDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "blend": lambda x, t: torch.cat([x[:, :2], x[:, 2:] * 0 + t / 1000], dim=1),
    "soft": lambda x, t: 0.7 * x + 0.3 * t / 1000,
    "bfloat16": lambda x, _: x.bfloat16(),
    "rounded": lambda x, _: x.bfloat16().float(),
    "both": lambda x, t: torch.cat([x[:, :2], x[:, 2:] * 0 + t / 1000], dim=1).half(),
}


def test_every_blend_and_rounding_is_followed() -> None:
    for blend in BLENDS.values():
        pipe = Loop(MATRIX["flow-euler"]())
        pipe.blend = blend
        plain = pipe()
        for solver, options in EACH_WAY.items():
            with genrun.parallelize(pipe, solver, **options):
                made = pipe()
            assert torch.equal(made, plain), solver


@pytest.mark.parametrize("solver", FEW)
@pytest.mark.parametrize(("blend", "size"), [*((blend, 2) for blend in BLENDS), ("both", 3)])
def test_ranks_learn_of_each_others_blends(blend: str, solver: str, size: int) -> None:
    def make() -> Loop:
        pipe = Loop(MATRIX["flow-euler"]())
        pipe.blend = BLENDS[blend]
        return pipe

    plain = make()()
    for made in on_ranks(size, make, solver):
        assert made.dtype == plain.dtype
        assert torch.equal(made, plain)


@pytest.mark.parametrize("solver", ["sequential", "ropa"])
def test_ranks_step_two_schedulers_together(solver: str) -> None:
    plain = Pair(MATRIX["flow-euler"]())()
    made = on_ranks(2, lambda: Pair(MATRIX["flow-euler"]()), solver)
    assert all(torch.equal(one, plain) for one in made)


def test_several_loops_in_a_call_are_all_followed() -> None:
    pipe = Loop(MATRIX["dpm-2m"]())
    plain = pipe(repeats=3)
    for solver, options in EACH_WAY.items():
        with genrun.parallelize(pipe, solver, **options) as run:
            assert torch.equal(pipe(repeats=3), plain), solver
        assert run.solution.fronts[-1] == STEPS


class Combined:
    """A pipeline that leaves its steps to two others, as Kandinsky's and Stable Cascade's do."""

    def __init__(self, prior: Loop, decoder: Loop) -> None:
        self.prior_pipe, self.decoder_pipe, self.scheduler = prior, decoder, decoder.scheduler

    def __call__(self) -> Tensor:
        return self.prior_pipe() + self.decoder_pipe(repeats=2)


def test_pipelines_that_another_leaves_its_steps_to_are_all_followed() -> None:
    pipe = Combined(Loop(MATRIX["flow-euler"]()), Loop(MATRIX["dpm-2m"]()))
    plain = pipe()
    for solver, options in EACH_WAY.items():
        with genrun.parallelize(pipe, solver, **options) as run:
            assert torch.equal(pipe(), plain), solver
        assert run.solution.fronts[-1] == STEPS
    assert type(pipe.prior_pipe) is type(pipe.decoder_pipe) is Loop
    with pytest.raises(CacheError, match="on one of them alone"), genrun.parallelize(pipe, cache="first_block"):
        pass


def test_a_loop_that_hides_its_timesteps_is_refused_and_followed_by_sequential() -> None:
    class Hiding(Loop):
        shown = staticmethod(lambda timesteps: timesteps.tolist())

    pipe = Hiding(MATRIX["flow-euler"]())
    plain = pipe()
    with genrun.parallelize(pipe, "sequential"):
        assert torch.equal(pipe(), plain)
    refusal = pytest.raises(RefusedError, match="does not go over")
    with genrun.parallelize(pipe, "paradigms", **EXACT["paradigms"]), refusal:
        pipe()


class Pair(Tiny):
    """A loop that steps sound beside a picture, and the picture but for its first channel."""

    def __call__(self, drawn: Any = None) -> Tensor:
        second, noise = copy.deepcopy(self.scheduler), {} if drawn is None else {"generator": drawn}
        second.set_timesteps(STEPS)
        self.scheduler.set_timesteps(STEPS)
        x, sound = torch.randn(2, 3, 4, 4, generator=generator(1)), torch.randn(2, 5, generator=generator(2))
        for t in self.scheduler.timesteps:
            output, heard = self.model(x, t) + sound.mean() * 0.1, torch.tanh(sound * 0.5) + x.mean()
            moved = self.scheduler.step(output[:, 1:], t, x[:, 1:], **noise, return_dict=False)[0]
            x = torch.cat([x[:, :1], moved], dim=1)
            sound = second.step(heard, t, sound, **noise).prev_sample
        return torch.cat([x.flatten(1), sound], dim=1)


@pytest.mark.parametrize("name", ["flow-euler", "ddim", "dpm-2m", "ddpm"])
def test_a_second_scheduler_is_stepped_with_the_first(name: str) -> None:
    pipe = Pair(MATRIX[name]())
    torch.manual_seed(0)
    plain = pipe()
    for solver, options in EACH_WAY.items():
        torch.manual_seed(0)
        with genrun.parallelize(pipe, solver, **options) as run:
            assert torch.equal(pipe(), plain), solver
        assert run.solution.rounds <= STEPS


def test_two_schedulers_draw_from_a_generator_of_each_sample() -> None:
    pipe, generators = Pair(MATRIX["ddpm"]()), lambda: [generator(3), generator(4)]
    plain = pipe(generators())
    for solver, options in EXACT.items():
        with genrun.parallelize(pipe, solver, **options):
            assert torch.equal(pipe(generators()), plain), solver


def test_copies_that_step_apart_are_refused() -> None:
    class Apart(Tiny):
        def __call__(self) -> Tensor:
            second = copy.deepcopy(self.scheduler)
            second.set_timesteps(STEPS)
            return second.step(torch.ones(1, 3), second.timesteps[0], torch.ones(1, 3), return_dict=False)[0]

    refusal = pytest.raises(RefusedError, match="each at times of its own")
    with refusal, genrun.parallelize(pipe := Apart(MATRIX["flow-euler"]()), "ropa"):
        pipe()


def test_an_error_between_two_schedulers_leaves_torch_as_it_was() -> None:
    class Failing(Tiny):
        def __call__(self) -> Tensor:
            _ = copy.deepcopy(self.scheduler)
            self.scheduler.set_timesteps(STEPS)
            self.scheduler.step(torch.ones(1, 3), self.scheduler.timesteps[0], torch.ones(1, 3))
            raise ValueError("broken")

    before = torch._C._len_torch_function_stack()
    with pytest.raises(ValueError, match="broken"), genrun.parallelize(pipe := Failing(MATRIX["ddim"]()), "ropa"):
        pipe()
    assert torch._C._len_torch_function_stack() == before


def test_arguments_that_are_another_in_each_step_are_followed() -> None:
    class Named(Tiny):
        def __call__(self) -> Tensor:
            self.scheduler.set_timesteps(STEPS)
            timesteps = self.scheduler.timesteps
            x = torch.randn(1, 3, 4, 4, generator=generator(1))
            for i, t in enumerate(timesteps):
                back = timesteps[i + 1] if i + 1 < timesteps.shape[0] else None
                x = self.scheduler.step(self.model(x, t), t, x, prev_timestep=back).prev_sample
            return x

    pipe = Named(df.UnCLIPScheduler())
    torch.manual_seed(0)
    plain = pipe()
    for solver, options in EACH_WAY.items():
        torch.manual_seed(0)
        with genrun.parallelize(pipe, solver, **options):
            assert torch.equal(pipe(), plain), solver


def test_arguments_as_large_as_the_latents_are_followed() -> None:
    class PerToken(Tiny):
        def __call__(self) -> Tensor:
            self.scheduler.set_timesteps(STEPS)
            x = torch.randn(1, 6, 4, generator=generator(1))
            still = torch.tensor([[0.0, 0.3, 0.6, 1.0, 1.0, 1.0]]) * 1000
            for t in self.scheduler.timesteps:
                output = torch.tanh(x.roll(1, dims=1) + t / 1000)
                x = self.scheduler.step(output, t, x, per_token_timesteps=still.minimum(t)).prev_sample
            return x

    pipe = PerToken(MATRIX["flow-euler"]())
    plain = pipe()
    for solver, options in EACH_WAY.items():
        with genrun.parallelize(pipe, solver, **options):
            assert torch.equal(pipe(), plain), solver


def test_a_step_that_is_taken_for_its_prediction_and_taken_back_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Twice(Tiny):
        def __call__(self) -> Tensor:
            self.scheduler.set_timesteps(STEPS)
            x = torch.randn(1, 3, 4, 4, generator=generator(1)) * self.scheduler.init_noise_sigma
            for t in self.scheduler.timesteps:
                output = self.model(self.scheduler.scale_model_input(x, t), t)
                x0 = self.scheduler.step(torch.cat([output, -output]), t, torch.cat([x, x]), return_dict=False)[1]
                self.scheduler._step_index -= 1
                x0 = 1.5 * x0[:1] - 0.5 * x0[1:]
                x = self.scheduler.step(x0, t, x, return_dict=False, pred_original_sample=x0)[0]
            return x

    loops = Loops(steps=True, several=False, repeats=(), looks_ahead=True)
    monkeypatch.setattr(parallelize, "loops_of_type", lambda _: loops)
    pipe = Twice(MATRIX["edm-euler"]())
    plain = pipe()
    for solver, options in EACH_WAY.items():
        with genrun.parallelize(pipe, solver, **options):
            assert torch.equal(pipe(), plain), solver


def test_a_loop_that_draws_noise_of_its_own_is_followed_by_sequential_alone() -> None:
    class Noisy(Tiny):
        def __call__(self, generator: torch.Generator) -> Tensor:
            self.scheduler.set_timesteps(STEPS)
            x = torch.ones(1, 3, 4, 4)
            for t in self.scheduler.timesteps:
                output = self.model(x, t) + torch.randn(x.shape, generator=generator)
                x = self.scheduler.step(output, t, x).prev_sample
            return x

    pipe = Noisy(MATRIX["flow-euler"]())
    plain = pipe(generator=generator(1))
    with genrun.parallelize(pipe, "sequential"):
        assert torch.equal(pipe(generator=generator(1)), plain)
    refusal = pytest.raises(RefusedError, match=r"draws noise in its loop .* use solver sequential")
    with genrun.parallelize(pipe, "ropa"), refusal:
        pipe(generator=generator(1))


def test_a_blend_by_the_timestep_of_the_step_before_is_followed_by_sequential_alone() -> None:
    class Late(Tiny):
        def __call__(self) -> Tensor:
            self.scheduler.set_timesteps(STEPS)
            x = torch.ones(1, 3, 4, 4)
            for t in self.scheduler.timesteps:
                x = self.scheduler.step(self.model(x, t), t, x).prev_sample
                x[:, :1] = t / 1000
            return x

    pipe = Late(MATRIX["flow-euler"]())
    plain = pipe()
    with genrun.parallelize(pipe, "sequential"):
        assert torch.equal(pipe(), plain)
    with genrun.parallelize(pipe, "ropa"), pytest.raises(RefusedError, match="by that step's timestep"):
        pipe()


def test_tables_are_the_real_ones_before_the_loop() -> None:
    pipe = TinyLoop(MATRIX["flow-euler"]())
    real = pipe.scheduler
    with genrun.parallelize(pipe, "ropa") as run:
        run.scheduler.begin_call(pipe, None)
        pipe.scheduler.set_timesteps(5)
        timesteps, sigmas = pipe.scheduler.timesteps, pipe.scheduler.sigmas
        assert isinstance(timesteps, TimestepTable)
        assert type(timesteps.float() + 1) is Tensor
        assert type(timesteps.expand(2, 5)) is Tensor
        assert torch.equal(timesteps.cpu(), real.timesteps)
        assert list(map(float, timesteps)) == timesteps.tolist() == real.timesteps.tolist()
        assert timesteps[-1] == real.timesteps[-1]
        assert timesteps[timesteps > 500].shape == (int((real.timesteps > 500).sum()),)
        sigmas[-1] = 0.25
        assert float(real.sigmas[-1]) == 0.25
        assert pipe.scheduler.order == real.order
        run.scheduler.end_call()
