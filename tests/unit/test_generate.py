"""Sampling and decoding an item, in two steps, is what the plain pipeline does in one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from genrun.adapters.adapter import Adapter
from genrun.adapters.generate import Request, call_arguments, decode, frames_of, sample
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
