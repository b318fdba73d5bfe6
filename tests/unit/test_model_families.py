"""Every model that has an adapter: chosen by its checkpoint, and exact under every solver, pictures and sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import genrun
from genrun.adapters import registry
from genrun.adapters.media import read_frames, write_video
from genrun.adapters.pipeline.families import Parts, chosen, form_of, informed, parts_of
from genrun.adapters.pipeline.pictures import pictures_of
from genrun.adapters.sampling.call import SamplingRequest, call_arguments, decode
from genrun.adapters.sampling.generate import sample
from genrun.adapters.sound import Sound
from genrun.solvers import registry as solvers
from tests.tiny import WITH_PICTURE, build, call_kwargs, latents_of
from tests.tiny.loops import FEW

ADAPTERS = {
    "wan21_i2v": "wan2.1-i2v",
    "wan22": "wan2.2",
    "wan22_i2v": "wan2.2",
    "wan22_5b": "wan2.2",
    "wan22_5b_i2v": "wan2.2",
    "hunyuanvideo15": "hunyuanvideo1.5",
    "hunyuanvideo15_i2v": "hunyuanvideo1.5",
    "hunyuanvideo_i2v": "hunyuanvideo-i2v",
    "cogvideox15_i2v": "cogvideox1.5-i2v",
    "ltx2": "ltx2",
    "ltx2_i2v": "ltx2",
    "qwenimage": "qwen-image",
    "qwenimage_edit": "qwen-image-edit",
    "qwenimage_edit_first": "qwen-image-edit",
    "flux2": "flux2",
    "flux2_klein": "flux2",
    "flux_kontext": "flux-kontext",
    "z_image": "z-image",
    "sdxl": "sdxl",
    "mochi": "mochi",
    "sana": "sana",
}
NOT_CHOSEN = ("wan21", "cogvideox_ddim", "sd2", "sd3", "flux", "hunyuanvideo", "ddpm", "ltx")
"""Jobs that name a folder of these have ids made of `auto`, or no adapter at all."""

SLOW = ("qwenimage_edit", "qwenimage_edit_first")
"""They scale a picture to a million pixels, whatever its size, so that their tiny VAE shrinks it four times as much."""


@pytest.mark.parametrize("family", ADAPTERS)
def test_a_folder_of_a_model_means_its_adapter_in_the_form_of_its_pipeline(family: str) -> None:
    pipe = build(family)
    parts = parts_of(pipe)
    name = chosen("a folder", parts)
    assert name is not None and name == ADAPTERS[family]
    form = form_of(registry.get(name), parts)
    assert form.pipeline == type(pipe).__name__
    kept = {"height", "width", "num_frames"} & call_kwargs(family).keys()
    assert form.validate({field: call_kwargs(family)[field] for field in kept}) == []
    known = informed(registry.get("auto"), parts)
    assert (known.kind, known.frames, known.sound) == (form.kind, form.frames, form.sound)
    assert family in SLOW or form.multiples % known.multiples == 0
    assert known.kind == "image" or known.fps == form.fps


@pytest.mark.parametrize("family", NOT_CHOSEN)
def test_other_folders_mean_auto(family: str) -> None:
    assert chosen("a folder", parts_of(build(family))) is None


@pytest.mark.parametrize("name", registry.OWN)
def test_every_hub_id_of_an_adapter_means_it_and_no_other(name: str) -> None:
    adapter = registry.get(name)
    for form in (adapter, *adapter.forms):
        assert (form.name, form.call, form.dtype, form.kind) == (
            adapter.name,
            adapter.call,
            adapter.dtype,
            adapter.kind,
        )
        for hub_id in {form.checkpoint, *form.variants} - {None}:
            assert chosen(str(hub_id), None) == (name if adapter.is_chosen else None)
            found = adapter.for_checkpoint(str(hub_id))
            assert (found.pipeline, found.fps) == (form.pipeline, form.fps)
            assert found.validate(found.defaults) == []


def test_a_hub_id_that_nobody_names_is_auto_whatever_is_in_the_cache() -> None:
    assert chosen("org/name", None) is None


def test_models_of_one_class_are_told_apart_by_what_their_index_says() -> None:
    klein = Parts("Flux2KleinPipeline", index={"is_distilled": True})
    base = Parts("Flux2KleinPipeline", index={"is_distilled": False})
    flux2 = registry.get("flux2")
    assert (form_of(flux2, klein).defaults["steps"], form_of(flux2, base).defaults["steps"]) == (4, 50)
    assert chosen("x", Parts("CogVideoXImageToVideoPipeline", denoiser_config={"patch_size_t": None})) is None


@pytest.mark.unit_part(family=["flux_kontext", "wan21_i2v", "ltx2"])
@pytest.mark.parametrize("family", [*WITH_PICTURE, "ltx2"])
def test_solvers_are_exact_from_a_picture_and_with_sound(family: str) -> None:
    pipe = build(family)

    def call() -> Any:
        return pipe(**{**call_kwargs(family), "num_inference_steps": 3})

    plain = call()
    for name, options in FEW.items():
        with genrun.parallelize(pipe, name, **options):
            made = call()
        assert torch.equal(latents_of(made), latents_of(plain)), name
        assert "audio" not in plain or torch.equal(made.audio, plain.audio), name


def test_both_experts_are_evaluated_wherever_a_solver_goes() -> None:
    """Which of them, the timestep of each point decides: a window over the boundary needs both in one round."""
    pipe = build("wan22_i2v")
    used: list[str] = []
    for name in ("transformer", "transformer_2"):
        getattr(pipe, name).register_forward_hook(lambda *_, name=name: used.append(name))
    with genrun.parallelize(pipe, "paradigms", workers=6, tolerance=0.0):
        pipe(**call_kwargs("wan22_i2v"))
    first_round = used[2:14]  # of six points with two branches each, after the start
    assert {*first_round} == {"transformer", "transformer_2"}


def request(family: str) -> SamplingRequest:
    call = call_kwargs(family)
    named = ("guidance_scale", "height", "width", "num_frames")
    skipped = (*named, "prompt", "image", "negative_prompt", "num_inference_steps", "generator", "output_type")
    options = {key: value for key, value in call.items() if key not in skipped}
    sampling = {**{name: call[name] for name in named}, "options": options, "steps": 3}
    return SamplingRequest(call["prompt"], 5, sampling)


def test_sound_is_decoded_from_the_latents_that_the_loop_leaves(tmp_path: Path) -> None:
    pipe, adapter, asked = build("ltx2"), registry.get("ltx2"), request("ltx2")
    with torch.no_grad():
        plain = pipe(**call_arguments(pipe, adapter, asked), output_type="np")
    found = sample(pipe, adapter, asked, solvers.get("paradigms")(workers=4, tolerance=0.0))
    assert len(found.others) == 1
    pictures = decode(pipe, adapter, asked, found.latents, found.others)
    assert pictures.sound is not None
    assert pictures.sound.rate == 24000
    assert np.array_equal(pictures.frames, pictures_of(plain).frames)
    assert np.array_equal(pictures.sound.samples, plain.audio[0].clamp(-1, 1).numpy())
    path = tmp_path / "clip.mp4"
    write_video(path, pictures.frames, 24, sound=pictures.sound)
    assert np.array_equal(read_frames(path).shape, pictures.frames.shape)
    assert heard(path)[1] == 24000


def heard(path: Path) -> tuple[np.ndarray, int, float]:
    """The first channel of a clip's sound, its rate, and the second at which it begins."""
    import av

    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
        samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
        return samples, container.streams.audio[0].rate, float(frames[0].time or 0)


@pytest.mark.parametrize(("rate", "channels"), [(24000, 2), (48000, 1), (10000, 2), (16000, 4)])
def test_sound_is_in_step_with_its_frames(tmp_path: Path, rate: int, channels: int) -> None:
    """A click at each of two white frames is heard where the frame is seen, to a tenth of its duration."""
    fps, count, white = 16, 33, (5, 31)
    frames = np.zeros((count, 32, 32, 3), np.uint8)
    samples = np.zeros((channels, round(0.8 * count / fps * rate) + rate), np.float32)
    for frame in white:
        frames[frame] = 255
        at = round(frame / fps * rate)
        samples[:, at : at + rate // 100] = np.sign(np.sin(np.arange(rate // 100) + 1.0)) * 0.9
    path = tmp_path / "clip.mp4"
    write_video(path, frames, fps, sound=Sound(samples, rate))
    again = tmp_path / "again.mp4"
    write_video(again, frames, fps, sound=Sound(samples, rate))
    assert path.read_bytes() == again.read_bytes()
    found, found_rate, begins = heard(path)
    loud = np.flatnonzero(np.abs(found) > 0.3)
    clicks = loud[np.diff(loud, prepend=-found_rate) > found_rate // 20]
    assert [(click / found_rate + begins) * fps for click in clicks] == pytest.approx(white, abs=0.1)
    assert len(found) / found_rate == pytest.approx(count / fps, abs=0.1)
