"""Loops of pipelines under a job: the latents that a job decodes are those that the loop leaves; and what has no loop."""

from __future__ import annotations

import copy
from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import genrun
from genrun.adapters.checkpoint.diffusers_source import Loops, loops_of
from genrun.adapters.errors import RefusedError
from genrun.adapters.pipeline.pictures import pictures_of
from genrun.adapters.sampling import generate
from genrun.adapters.sampling.generate import _run_loop
from genrun.adapters.sampling.parallelize import left_as_found
from genrun.solvers import registry
from tests.tiny import CHUNKED, FAMILIES, OF_EACH_LOOP, WITH_PICTURE, build, call_kwargs, generator, latents_of
from tests.tiny.loops import EACH_WAY, EXACT, FEW, MATRIX, STEPS, Tiny
from tests.unit.test_loops import FROM_PICTURE, INPAINTING, Pair, arguments, other

df: Any = import_module("diffusers")
KINDS = {**INPAINTING, "StableDiffusion3Img2ImgPipeline": FROM_PICTURE["StableDiffusion3Img2ImgPipeline"]}


@pytest.mark.unit_part(dtype=[torch.bfloat16])
@pytest.mark.parametrize("solver", ["sequential", "paradigms"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_job_gets_the_latents_that_the_loop_leaves(kind: str, dtype: torch.dtype, solver: str) -> None:
    family, more = KINDS[kind]
    pipe = other(kind, family, dtype)
    call = {**arguments(family, **more), "output_type": "latent"}
    plain = latents_of(pipe(**call))
    call = {**arguments(family, **more), "output_type": "latent"}
    latents, run, pictures = _run_loop(pipe, call, registry.get(solver)(**EXACT[solver]), None, None)
    assert pictures is None
    assert latents.dtype == plain.dtype
    assert torch.equal(latents, plain)
    assert run.solution.rounds


@pytest.mark.parametrize("solver", ["sequential", "ropa"])
def test_what_is_sampled_beside_the_picture_comes_along(solver: str) -> None:
    plain = Pair(MATRIX["flow-euler"]())()
    latents, run, _ = _run_loop(Pair(MATRIX["flow-euler"]()), {}, registry.get(solver)(**EXACT[solver]), None, None)
    (sound,) = run.scheduler.active.beside
    assert torch.equal(torch.cat([latents.flatten(1), sound], dim=1), plain)


def test_a_call_with_several_loops_is_made_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Chunks(Tiny):
        def __call__(self, output_type: str) -> Any:
            assert output_type == "np"
            x = torch.randn(1, 3, 4, 4, generator=generator(1))
            for _ in range(2):
                self.scheduler.set_timesteps(STEPS)
                for t in self.scheduler.timesteps:
                    x = self.scheduler.step(self.model(x, t), t, x, return_dict=False)[0]
            return SimpleNamespace(images=x.permute(0, 2, 3, 1).sigmoid().numpy())

    pipe = Chunks(MATRIX["flow-euler"]())
    plain = pictures_of(pipe("np")).frames
    monkeypatch.setattr(generate, "loops_of_type", lambda _: Loops(steps=True, several=True, repeats=()))
    _, run, pictures = _run_loop(pipe, {}, registry.get("paradigms")(**EXACT["paradigms"]), None, None)
    assert pictures is not None
    assert (pictures.frames == plain).all()
    assert run.solution.fronts[-1] == STEPS


@pytest.mark.parametrize("family", CHUNKED)
def test_chunks_of_a_clip_are_followed_one_after_another(family: str) -> None:
    pipe = build(family, torch.bfloat16)  # to which the loop casts its history

    def made() -> Tensor:
        return latents_of(pipe(**call_kwargs(family) | {"num_inference_steps": 3}))

    plain = made()
    for solver, options in FEW.items():
        with genrun.parallelize(pipe, solver, **options):
            assert torch.equal(made(), plain), solver


@pytest.mark.parametrize(
    ("kind", "loops"),
    [
        ("FluxInpaintPipeline", Loops(steps=True, several=False, repeats=())),
        ("AnimateDiffPipeline", Loops(steps=True, several=False, repeats=("num_free_init_iters",))),
        ("LTX2Pipeline", Loops(steps=True, several=False, repeats=())),
        ("WanAnimatePipeline", Loops(steps=True, several=False, repeats=("num_segments",))),
        ("AnyFlowFARPipeline", Loops(steps=True, several=True, repeats=(), turned=(0, 2, 1, 3, 4))),
        ("AnyFlowPipeline", Loops(steps=True, several=False, repeats=(), turned=(0, 2, 1, 3, 4))),
        ("ShapEPipeline", Loops(steps=True, several=False, repeats=(), reshaped=True)),
        (
            "KandinskyV22CombinedPipeline",
            Loops(steps=True, several=False, repeats=(), apart="leaves the steps to other pipelines that it calls"),
        ),
        (
            "SkyReelsV2DiffusionForcingPipeline",
            Loops(
                steps=True,
                several=True,
                repeats=("n_iter", "n_iter"),
                apart="steps each frame with a scheduler and at times of its own",
            ),
        ),
        (
            "StableDiffusionPanoramaPipeline",
            Loops(
                True, several=True, repeats=(), apart="steps parts of its latents one after another at each timestep"
            ),
        ),
        (
            "KarrasVePipeline",
            Loops(
                True,
                several=False,
                repeats=(),
                apart="changes its latents by its scheduler's step_correct beside its step",
            ),
        ),
        ("LTXLatentUpsamplePipeline", Loops(steps=False, several=False, repeats=())),
        ("TomorrowsPipeline", None),
    ],
)
def test_loops_are_read_off_the_source(kind: str, loops: Loops | None) -> None:
    found = loops_of(kind)
    assert (None if found is None else replace(found, carried=())) == loops


def test_variables_that_steps_take_over_are_read_off_the_source() -> None:
    names = ("SemanticStableDiffusionPipeline", "StableDiffusionPipelineSafe", "StableDiffusionXLPipeline")
    assert [getattr(loops_of(name), "carried", None) for name in names] == [
        ("edit_momentum",),
        ("safety_momentum",),
        (),
    ]


@pytest.mark.parametrize("views", [1, 2])
def test_a_loop_that_keeps_its_schedulers_memory_is_followed_unless_it_steps_parts(views: int) -> None:
    class Views(Tiny):
        def __call__(self) -> Tensor:
            self.scheduler.set_timesteps(STEPS)
            parts = list(torch.randn(views, 1, 3, 4, 4, generator=generator(1)))
            memories = [copy.deepcopy(self.scheduler.__dict__) for _ in parts]
            for t in self.scheduler.timesteps:
                for number, x in enumerate(parts):
                    self.scheduler.__dict__.update(memories[number])
                    parts[number] = self.scheduler.step(self.model(x, t), t, x).prev_sample
                    memories[number] = copy.deepcopy(self.scheduler.__dict__)
            return torch.cat(parts)

    pipe = Views(MATRIX["flow-euler"]())
    plain = pipe()
    for solver, options in EACH_WAY.items():
        with genrun.parallelize(pipe, solver, **options):
            if views == 1:
                assert torch.equal(pipe(), plain), solver
                continue
            with pytest.raises(RefusedError, match="more than once at a timestep"):
                pipe()


@pytest.mark.parametrize("blended", [(0, 1), (2, 3), (STEPS - 2,)], ids=["first", "middle", "last"])
def test_a_loop_that_changes_its_latents_in_some_steps_alone_is_followed(blended: tuple[int, ...]) -> None:
    class Some(Tiny):
        def __call__(self) -> Tensor:
            self.scheduler.set_timesteps(STEPS)
            x = torch.randn(1, 3, 4, 4, generator=generator(1))
            for i, t in enumerate(self.scheduler.timesteps):
                x = x + 0.1 * x.roll(1, dims=1) if i in blended else x
                x = self.scheduler.step(self.model(x, t), t, x).prev_sample
            return x

    pipe = Some(MATRIX["flow-euler"]())
    plain = pipe()
    for solver, options in EACH_WAY.items():
        with genrun.parallelize(pipe, solver, **options):
            assert torch.equal(pipe(), plain), solver


def test_a_pipeline_without_a_scheduler_is_refused() -> None:
    class Upsampler:
        def __call__(self) -> None: ...

    with pytest.raises(RefusedError, match="Upsampler has no scheduler"), genrun.parallelize(Upsampler(), "ropa"):
        raise AssertionError


def test_a_loop_over_an_iterator_is_followed_without_its_counter() -> None:
    class Bare(Tiny):
        def __call__(self) -> Tensor:
            self.scheduler.set_timesteps(STEPS)
            x = torch.ones(1, 3, 4, 4)
            for t in iter(self.scheduler.timesteps):
                x = self.scheduler.step(self.model(x, t), t, x, return_dict=False)[0]
            return x

    pipe = Bare(MATRIX["dpm-2m"]())
    plain = pipe()
    for solver, options in EACH_WAY.items():
        with genrun.parallelize(pipe, solver, **options):
            assert torch.equal(pipe(), plain), solver


def in_turn(pipe: Any, first: dict[str, Any], between: dict[str, Any], solver: str, **options: Any) -> list[Tensor]:
    """Sample an item, another one and the first again on one pipeline; return the latents of both times."""
    found = []
    for given in (first, between, first):
        call = {**given, "generator": generator(given["seed"])}
        del call["seed"]
        latents, run, _ = _run_loop(pipe, call, registry.get(solver)(**options), None, None)
        found.append([latents, *run.scheduler.active.beside])
    return [torch.cat([each.flatten() for each in one]) for one in found]


@pytest.mark.unit_part(family=[*OF_EACH_LOOP, "wan22", "ltx2_i2v"])
@pytest.mark.parametrize("family", [*FAMILIES, *WITH_PICTURE])
def test_an_item_is_the_same_whatever_was_sampled_before_it(family: str) -> None:
    call = {**call_kwargs(family), "num_inference_steps": 2, "seed": 3}
    between = {**call, "num_inference_steps": 3, "seed": 9}
    if "prompt" in call:
        between["prompt"] = "a large blue square on gray, moving up"
    alone, other_one, after = in_turn(build(family), call, between, "collocation", workers=2)
    assert torch.equal(after, alone)
    assert not torch.equal(other_one, alone)


PAG = {"StableDiffusionPAGPipeline": "sd2", "StableDiffusion3PAGPipeline": "sd3", "SanaPAGPipeline": "sana"}


@pytest.mark.parametrize("kind", PAG)
def test_attention_that_was_perturbed_is_whole_for_the_next_item(kind: str) -> None:
    call = {**arguments(PAG[kind]), "pag_scale": 0.0, "seed": 1}
    alone, perturbed, after = in_turn(other(kind, PAG[kind]), call, {**call, "pag_scale": 3.0}, "sequential")
    assert torch.equal(after, alone)
    assert not torch.equal(perturbed, alone)


def test_a_controlnet_keeps_its_attention_where_its_own_list_of_it_is_empty() -> None:
    size = {"num_attention_heads": 2, "attention_head_dim": 4, "hidden_size": 8, "transformer_num_layers": 4}
    model = df.HunyuanDiT2DControlNetModel(in_channels=4, patch_size=2, sample_size=8, **size)
    before = [module.processor for module in model.modules() if hasattr(module, "get_processor")]
    assert before and set(model.attn_processors.values()) == {None}
    with left_as_found(SimpleNamespace(components={"controlnet": model})):
        model.set_attn_processor(df.models.attention_processor.AttnProcessor2_0())
    after = [module.processor for module in model.modules() if hasattr(module, "get_processor")]
    assert all(one is other for one, other in zip(before, after, strict=True))


def test_a_guider_that_stopped_begins_anew_with_the_next_item() -> None:
    pipe = build("hunyuanvideo15")
    pipe.guider = pipe.guider.new(start=0.2, stop=0.6)
    call = {**arguments("hunyuanvideo15"), "seed": 1}
    alone, _, after = in_turn(pipe, call, {**call, "seed": 2}, "paradigms", workers=2)
    assert torch.equal(after, alone)
