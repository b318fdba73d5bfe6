"""Sampling and decoding an item, in two steps, is what the plain pipeline does in one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from genrun.adapters.adapter import Adapter
from genrun.adapters.encode_once import encode_once
from genrun.adapters.generate import Request, call_arguments, decode, frames_of, sample, sample_batch
from genrun.solvers import registry
from tests.tiny import build, call_kwargs

AUTO = Adapter("auto", "any")


def request_for(family: str, seed: int = 5) -> Request:
    call = call_kwargs(family)
    named = ("guidance_scale", "height", "width", "num_frames")
    skipped = (*named, "prompt", "negative_prompt", "num_inference_steps", "generator", "output_type")
    sampling: dict[str, Any] = {name: call[name] for name in named if name in call}
    sampling["options"] = {key: value for key, value in call.items() if key not in skipped}
    sampling["steps"] = 6
    return Request(call.get("prompt", ""), seed, sampling, call.get("negative_prompt"))


@pytest.mark.parametrize(
    "family", ["sd3", "flux", "hunyuanvideo", "wan21", "cogvideox_ddim", "sd2", "ddpm", "qwenimage"]
)
def test_sample_and_decode_give_the_plain_pipelines_frames(family: str) -> None:
    pipe, request = build(family), request_for(family)
    with torch.no_grad():
        plain = frames_of(pipe(**call_arguments(pipe, AUTO, request), output_type="np"))
    found = sample(pipe, AUTO, request, registry.get("sequential")())
    frames = decode(pipe, AUTO, request, found.latents)
    assert frames.dtype == np.uint8
    assert frames.ndim == 4
    assert frames.shape[-1] == 3
    assert np.array_equal(frames, plain)
    assert found.num_steps == found.solution.rounds == 6


def test_the_scheduler_a_request_names_is_used_and_put_back() -> None:
    pipe, request = build("wan21"), request_for("wan21")
    euler = Request(
        request.prompt,
        request.seed,
        {**request.sampling, "scheduler": {"kind": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}},
    )
    before = pipe.scheduler
    one = sample(pipe, AUTO, request, registry.get("sequential")())
    other = sample(pipe, AUTO, euler, registry.get("sequential")())
    assert pipe.scheduler is before
    assert not torch.equal(one.latents, other.latents)


def test_pictures_of_a_pipeline_without_latents_are_decoded_from_bfloat16() -> None:
    pipe, request = build("ddpm", torch.bfloat16), request_for("ddpm")
    latents = sample(pipe, AUTO, request, registry.get("ropa")()).latents
    assert latents.dtype == torch.bfloat16
    pixels = (latents[0].float().permute(1, 2, 0) / 2 + 0.5).clamp(0, 1) * 255
    assert np.array_equal(decode(pipe, AUTO, request, latents)[0], pixels.round().byte().numpy())


def test_another_seed_or_prompt_is_another_sample() -> None:
    pipe, request = build("sd3"), request_for("sd3")
    solver = registry.get("sequential")()
    first = sample(pipe, AUTO, request, solver).latents
    assert torch.equal(first, sample(pipe, AUTO, request, solver).latents)
    assert not torch.equal(first, sample(pipe, AUTO, request_for("sd3", seed=6), solver).latents)
    other = Request("a blue square", request.seed, request.sampling)
    assert not torch.equal(first, sample(pipe, AUTO, other, solver).latents)


def test_arguments_that_a_pipeline_does_not_take_are_left_out() -> None:
    pipe = build("ddpm")
    assert set(call_arguments(pipe, AUTO, Request("ignored", 1, {"steps": 3, "guidance_scale": 2.0}))) == {
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


def test_a_batch_shares_its_sampling() -> None:
    pipe, request = build("sd3"), request_for("sd3")
    other = Request(request.prompt, 7, {**request.sampling, "guidance_scale": 1.0})
    with pytest.raises(ValueError, match="a batch shares one sampling section"):
        sample_batch(pipe, AUTO, [request, other], registry.get("ropa")())


@pytest.mark.parametrize("family", ["sd3", "flux", "wan21", "cogvideox_ddim"])
def test_prompts_are_encoded_once_and_the_bits_do_not_change(family: str) -> None:
    pipe, request = build(family), request_for(family)
    other = Request("a blue square", request.seed, request.sampling)
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
