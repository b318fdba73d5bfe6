"""Sampling and decoding an item, in two steps, is what the plain pipeline does in one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from genrun.adapters.adapter import Adapter
from genrun.adapters.errors import RefusedError
from genrun.adapters.pipeline.encoders import encode_once
from genrun.adapters.pipeline.pictures import pictures_of
from genrun.adapters.sampling.call import FinishedScheduler, SamplingRequest, call_arguments, decode
from genrun.adapters.sampling.embeddings import encode
from genrun.adapters.sampling.generate import sample, sample_batch
from genrun.solvers import registry
from tests.tiny import build, call_kwargs, picture
from tests.tiny.from_picture import hunyuanvideo_i2v
from tests.tiny.loops import df

AUTO = Adapter("auto", "any")


def request_for(family: str, seed: int = 5) -> SamplingRequest:
    call = call_kwargs(family)
    named = ("guidance_scale", "height", "width", "num_frames")
    skipped = (*named, "prompt", "image", "negative_prompt", "num_inference_steps", "generator", "output_type")
    sampling: dict[str, Any] = {name: call[name] for name in named if name in call}
    sampling["options"] = {key: value for key, value in call.items() if key not in skipped}
    sampling["steps"] = 4
    return SamplingRequest(call.get("prompt", ""), seed, sampling, call.get("negative_prompt"))


@pytest.mark.parametrize(
    "family", ["sd3", "flux", "hunyuanvideo", "wan21", "cogvideox_ddim", "sd2", "ddpm", "qwenimage"]
)
def test_sample_and_decode_give_the_plain_pipelines_frames(family: str) -> None:
    pipe, request = build(family), request_for(family)
    with torch.no_grad():
        plain = pictures_of(pipe(**call_arguments(pipe, AUTO, request), output_type="np")).frames
    found = sample(pipe, AUTO, request, registry.get("sequential")())
    frames = decode(pipe, AUTO, request, found.latents).frames
    assert frames.dtype == np.uint8
    assert frames.ndim == 4
    assert frames.shape[-1] == 3
    assert np.array_equal(frames, plain)
    assert found.num_steps == found.solution.rounds == 4


def test_the_scheduler_a_request_names_is_used_and_put_back() -> None:
    pipe, request = build("wan21"), request_for("wan21")
    euler = SamplingRequest(
        request.prompt,
        request.seed,
        {**request.sampling, "scheduler": {"kind": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}},
    )
    before = pipe.scheduler
    one = sample(pipe, AUTO, request, registry.get("sequential")())
    other = sample(pipe, AUTO, euler, registry.get("sequential")())
    assert pipe.scheduler is before
    assert not torch.equal(one.latents, other.latents)


def with_scheduler(request: SamplingRequest, seed: int = 5, **scheduler: Any) -> SamplingRequest:
    return SamplingRequest(request.prompt, seed, {**request.sampling, "scheduler": scheduler}, request.negative_prompt)


FLOW_SDE = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "algorithm_type": "sde-dpmsolver++"}


@pytest.mark.parametrize(
    ("family", "scheduler"),
    [
        ("sd3", {"kind": "DPMSolverMultistepScheduler", **FLOW_SDE}),
        ("flux", {"kind": "FlowMatchEulerDiscreteScheduler", "stochastic_sampling": True}),
        ("wan21", {"kind": "FlowMatchLCMScheduler"}),
    ],
)
def test_pipelines_that_keep_their_generator_from_the_scheduler_have_noise_of_their_own_seed(
    family: str, scheduler: dict[str, Any]
) -> None:
    pipe, request = build(family), request_for(family)
    found = []
    for state, solver in enumerate(("sequential", "ropa", "collocation")):
        torch.manual_seed(state)  # what other items have left behind
        chosen = registry.get(solver)() if solver == "sequential" else registry.get(solver)(workers=3, tolerance=0.0)
        found.append(sample(pipe, AUTO, with_scheduler(request, **scheduler), chosen).latents)
    assert all(torch.equal(found[0], other) for other in found)
    other = sample(pipe, AUTO, with_scheduler(request, 6, **scheduler), registry.get("sequential")()).latents
    assert not torch.equal(found[0], other)


def test_what_a_pipeline_draws_without_its_generator_is_of_the_seed_too() -> None:
    pipe, request = build("sd3"), request_for("sd3")
    plain = type(pipe).encode_prompt

    def noisy(self: Any, *args: Any, **kwargs: Any) -> Any:
        first, *rest = plain(self, *args, **kwargs)
        return (first + torch.randn_like(first), *rest)

    pipe.__class__ = type("Noisy", (type(pipe),), {"encode_prompt": noisy})
    sequential = registry.get("sequential")()
    first, again = (sample(pipe, AUTO, request, sequential).latents for _ in range(2))
    assert torch.equal(first, again)


def test_a_scheduler_for_another_kind_of_model_is_refused_before_sampling() -> None:
    pipe, request = build("sd3"), request_for("sd3")
    with pytest.raises(RefusedError, match=r"says diffusion, epsilon: the pictures would be noise. Write \{kind"):
        sample(pipe, AUTO, with_scheduler(request, kind="UniPCMultistepScheduler"), registry.get("sequential")())


def test_a_pipeline_that_decodes_its_last_prediction_gets_that() -> None:
    """LCM's: the latents that its last step leads to are another picture."""
    parts = build("sd2").components
    unet = parts["unet"]
    parts["unet"] = type(unet).from_config(unet.config, time_cond_proj_dim=8).eval()
    parts["scheduler"] = df.LCMScheduler(beta_schedule="scaled_linear")
    pipe = df.LatentConsistencyModelPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    request = SamplingRequest("a red kite", 5, {"steps": 4, "height": 64, "width": 64, "guidance_scale": 3.0})
    with torch.no_grad():
        plain = pictures_of(pipe(**call_arguments(pipe, AUTO, request), output_type="np")).frames
    assert encode(pipe, AUTO, request)
    for solver in ("sequential", "ropa"):
        options = {} if solver == "sequential" else {"tolerance": 0.0, "workers": 2}
        found = sample(pipe, AUTO, request, registry.get(solver)(**options))
        assert np.array_equal(decode(pipe, AUTO, request, found.latents).frames, plain)


def anyflow() -> Any:
    parts = build("wan21").components
    known, takes = parts["transformer"].config, inspect.signature(df.AnyFlowTransformer3DModel.__init__).parameters
    torch.manual_seed(0)
    transformer = df.AnyFlowTransformer3DModel(**{name: known[name] for name in takes if name in known})
    named = {name: parts[name] for name in ("tokenizer", "text_encoder", "vae")}
    return df.AnyFlowPipeline(**named, transformer=transformer.eval(), scheduler=df.FlowMapEulerDiscreteScheduler())


def kandinsky3() -> Any:
    parts = build("wan21").components
    torch.manual_seed(0)
    unet = df.Kandinsky3UNet(
        time_embedding_dim=4,
        groups=2,
        attention_head_dim=4,
        block_out_channels=(32, 64),
        cross_attention_dim=4,
        encoder_hid_dim=parts["text_encoder"].config.d_model,
    )
    four = {"block_out_channels": (32,) * 4, "norm_num_groups": 8}
    four |= {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    movq = df.VQModel(latent_channels=4, num_vq_embeddings=12, vq_embed_dim=4, norm_type="spatial", **four)
    named = {name: parts[name] for name in ("tokenizer", "text_encoder")}
    return df.Kandinsky3Pipeline(**named, unet=unet.eval(), movq=movq.eval(), scheduler=df.DDIMScheduler())


@pytest.mark.parametrize(
    ("make", "sampling"),
    [(anyflow, {"height": 16, "width": 16, "num_frames": 61}), (kandinsky3, {"height": 64, "width": 64})],
)
def test_latents_are_decoded_by_pipelines_that_hold_or_decode_them_otherwise(
    make: Callable[[], Any], sampling: dict[str, int]
) -> None:
    """AnyFlow's loop has frames before channels (here 16 of each), and Kandinsky's decoder another name."""
    pipe = make()
    pipe.set_progress_bar_config(disable=True)
    request = SamplingRequest("a red kite", 5, {"steps": 2, "guidance_scale": 3.0, **sampling})
    with torch.no_grad():
        plain = pictures_of(pipe(**call_arguments(pipe, AUTO, request), output_type="np")).frames
    found = sample(pipe, AUTO, request, registry.get("sequential")())
    assert np.array_equal(decode(pipe, AUTO, request, found.latents).frames, plain)


def test_frames_that_a_pipeline_cuts_off_are_not_missed() -> None:
    """HunyuanVideo's first release from a picture decodes four frames for that, and leaves them out."""
    pipe: Any = hunyuanvideo_i2v(image_condition_type="latent_concat", in_channels=9)
    pipe.set_progress_bar_config(disable=True)
    request = replace(request_for("hunyuanvideo_i2v"), inputs={"image": [[picture()]]})
    with torch.no_grad():
        plain = pictures_of(pipe(**call_arguments(pipe, AUTO, request), output_type="np")).frames
    found = sample(pipe, AUTO, request, registry.get("sequential")())
    frames = decode(pipe, AUTO, request, found.latents).frames
    assert np.array_equal(frames, plain)
    assert len(frames) == request.sampling["num_frames"] - 4


def test_a_loop_that_runs_once_has_a_timestep_whatever_strength_it_starts_from() -> None:
    """DeepFloyd's from a picture takes a window of the timesteps, and makes as many pictures as its first has timesteps."""
    real = df.DDIMScheduler()
    real.set_timesteps(4)
    once = FinishedScheduler(real, torch.zeros(1, 3, 4, 4), loops=True, starts=True).timesteps
    window: Any = once[3:]
    assert len(window) == len(window[:1]) == 1
    assert [int(t) for t in window] == [int(t) for _, t in window.enumerated()] == [int(real.timesteps[-1])]


def test_pictures_of_a_pipeline_without_latents_are_decoded_from_bfloat16() -> None:
    pipe, request = build("ddpm", torch.bfloat16), request_for("ddpm")
    latents = sample(pipe, AUTO, request, registry.get("ropa")()).latents
    assert latents.dtype == torch.bfloat16
    pixels = (latents[0].float().permute(1, 2, 0) / 2 + 0.5).clamp(0, 1) * 255
    assert np.array_equal(decode(pipe, AUTO, request, latents).frames[0], pixels.round().byte().numpy())


def test_another_seed_or_prompt_is_another_sample() -> None:
    pipe, request = build("sd3"), request_for("sd3")
    solver = registry.get("sequential")()
    first = sample(pipe, AUTO, request, solver).latents
    assert torch.equal(first, sample(pipe, AUTO, request, solver).latents)
    assert not torch.equal(first, sample(pipe, AUTO, request_for("sd3", seed=6), solver).latents)
    other = SamplingRequest("a blue square", request.seed, request.sampling)
    assert not torch.equal(first, sample(pipe, AUTO, other, solver).latents)


def test_arguments_that_a_pipeline_does_not_take_are_left_out() -> None:
    pipe = build("ddpm")
    assert set(call_arguments(pipe, AUTO, SamplingRequest("ignored", 1, {"steps": 3, "guidance_scale": 2.0}))) == {
        "num_inference_steps",
        "generator",
    }


@pytest.mark.parametrize("family", ["sd3", "wan21", "ddpm"])
def test_a_batch_controls_and_returns_each_sample_apart(family: str) -> None:
    pipe, solver = build(family), registry.get("ropa")(workers=3)
    requests = [request_for(family, seed) for seed in (5, 6)]
    together = sample_batch(pipe, AUTO, requests, solver)
    for request, found in zip(requests, together, strict=True):
        alone = sample(pipe, AUTO, request, solver)
        assert found.solution.fronts == alone.solution.fronts
        assert torch.allclose(found.latents, alone.latents, atol=1e-4)


def test_sizes_of_a_job_reach_a_call_that_adds_them_to_a_tuple() -> None:
    pipe, sizes = build("sdxl"), {"original_size": (96, 64), "crops_coords_top_left": (0, 8)}
    call = {
        **call_kwargs("sdxl"),
        "prompt": "a",
        "num_inference_steps": 2,
        "generator": torch.Generator().manual_seed(1),
    }
    sampling = {"steps": 2, "guidance_scale": 5.0, "height": 64, "width": 64}
    request = SamplingRequest("a", 1, {**sampling, "options": {name: list(value) for name, value in sizes.items()}})
    assert torch.equal(sample(pipe, AUTO, request, registry.get("sequential")()).latents, pipe(**call, **sizes).images)


def test_a_batch_shares_its_sampling() -> None:
    pipe, request = build("sd3"), request_for("sd3")
    other = SamplingRequest(request.prompt, 7, {**request.sampling, "guidance_scale": 1.0})
    with pytest.raises(ValueError, match="a batch shares one sampling section"):
        sample_batch(pipe, AUTO, [request, other], registry.get("ropa")())


@pytest.mark.parametrize("family", ["sd3", "flux", "wan21", "cogvideox_ddim"])
def test_prompts_are_encoded_once_and_the_bits_do_not_change(family: str) -> None:
    pipe, request = build(family), request_for(family)
    other = SamplingRequest("a blue square", request.seed, request.sampling)
    calls = []
    pipe.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    solver = registry.get("sequential")()
    expected = [sample(pipe, AUTO, each, solver).latents for each in (request, other)]
    once, kind = len(calls), type(pipe)
    with encode_once(pipe):
        for _ in range(2):
            found = [sample(pipe, AUTO, each, solver).latents for each in (request, other)]
            assert all(map(torch.equal, found, expected))
    assert len(calls) <= 2 * once
    assert type(pipe) is kind


def test_encodings_of_other_arguments_are_not_mixed_up() -> None:
    pipe = build("sd3")
    with encode_once(pipe):
        plain = pipe.encode_prompt("a cat", None, None, max_sequence_length=16)
        longer = pipe.encode_prompt("a cat", None, None, max_sequence_length=24)
        given = pipe.encode_prompt("a cat", None, None, prompt_embeds=plain[0] + 1, pooled_prompt_embeds=plain[2])
        plain[0].zero_()
        again = pipe.encode_prompt("a cat", None, None, max_sequence_length=16)
    assert longer[0].shape[1] == plain[0].shape[1] + 8
    assert bool((given[0] != 0).any())
    assert bool((again[0] != 0).any())


def test_a_pipeline_without_prompts_has_nothing_to_encode() -> None:
    pipe = build("ddpm")
    with encode_once(pipe):
        sample(pipe, AUTO, request_for("ddpm"), registry.get("sequential")())
