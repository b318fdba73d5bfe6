"""What comes out of a pipeline counts as made only when it is finite, and what was asked for."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from genrun.adapters.adapter import Adapter
from genrun.adapters.pipeline.pictures import PictureError, check_asked, check_encodings, pictures_of
from genrun.adapters.sampling.call import SamplingRequest, call_arguments, check_request, decode
from genrun.adapters.sampling.embeddings import encode
from genrun.adapters.sampling.generate import sample
from genrun.runner.notes import BLANK, FPS_ASSUMED, SAFETY_CHECKER
from genrun.runner.worker.engine import Engine
from genrun.runner.worker.failures import DecodeError, describe
from genrun.runner.worker.producer import Decoded
from genrun.solvers import registry
from tests.fakes.items import make_item
from tests.tiny import build
from tests.unit.test_generate import request_for

AUTO = Adapter("auto", "any")
SEQUENTIAL = registry.get("sequential")()


def images(*shape: int, **more: Any) -> Any:
    return SimpleNamespace(images=np.full(shape, 0.5, np.float32), **more)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_of_any_channels(channels: int) -> None:
    assert pictures_of(images(1, 6, 8, channels)).frames.shape == (1, 6, 8, channels)


def test_a_picture_without_an_axis_of_channels_is_grey() -> None:
    assert pictures_of(images(1, 6, 8)).frames.shape == (1, 6, 8, 1)


def test_frames_of_a_clip() -> None:
    output = SimpleNamespace(frames=np.zeros((1, 5, 6, 8, 3), np.float32))
    assert pictures_of(output).frames.shape == (5, 6, 8, 3)


def test_pictures_of_pillow_are_taken_as_they_are() -> None:
    from PIL import Image

    picture = Image.new("RGB", (8, 6), (1, 2, 3))
    assert pictures_of(SimpleNamespace(images=[picture])).frames[0, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_enough(value: float) -> None:
    output = images(1, 4, 4, 3)
    output.images[0, 1, 2, 0] = value
    with pytest.raises(PictureError, match="1 of 48 values are") as caught:
        pictures_of(output)
    assert caught.value.kind == "non_finite"


def test_several_pictures_are_not_one_item() -> None:
    with pytest.raises(PictureError, match="2 pictures came out for one item") as caught:
        pictures_of(images(2, 4, 4, 3))
    assert "use seeds" in caught.value.remedy


def test_what_is_no_picture_is_told_as_such() -> None:
    with pytest.raises(PictureError, match="no pictures but a SimpleNamespace"):
        pictures_of(SimpleNamespace(audio=1))
    with pytest.raises(PictureError, match="is no picture"):
        pictures_of(images(1, 4, 4, 7))


@pytest.mark.parametrize("flags", [{"nsfw_content_detected": [True]}, {"nsfw_detected": [True]}])
def test_a_safety_checker_is_heard(flags: dict[str, Any]) -> None:
    assert pictures_of(images(1, 4, 4, 3, **flags)).flagged
    assert not pictures_of(images(1, 4, 4, 3, nsfw_content_detected=[False])).flagged
    assert not pictures_of(images(1, 4, 4, 3, nsfw_content_detected=None)).flagged


def test_one_colour_throughout_is_blank() -> None:
    assert pictures_of(images(1, 4, 4, 3)).is_blank
    other = images(1, 4, 4, 3)
    other.images[0, 0, 0, 0] = 0.6
    assert not pictures_of(other).is_blank


def test_other_frames_or_sizes_than_asked_for() -> None:
    made = pictures_of(SimpleNamespace(frames=np.zeros((1, 9, 32, 64, 3), np.float32)))
    check_asked(made, {"num_frames": 9, "height": 32, "width": 64})
    check_asked(made, {})
    with pytest.raises(PictureError, match="num_frames 10 became 9, height 48 became 32") as caught:
        check_asked(made, {"num_frames": 10, "height": 48, "width": 64})
    assert "num_frames: 9, height: 32" in caught.value.remedy


def overflowing(pipe: Any, value: float) -> Any:
    """The pipeline with a VAE that gives one value throughout."""
    layers = [module for module in pipe.vae.decoder.modules() if getattr(module, "bias", None) is not None]
    with torch.no_grad():
        layers[-1].bias.fill_(value)
    return pipe


@pytest.mark.parametrize(("family", "value"), [("sd3", np.nan), ("sd3", np.inf), ("wan21", np.nan), ("wan21", np.inf)])
def test_a_vae_that_overflows_is_found_although_what_follows_clamps(family: str, value: float) -> None:
    pipe, request = build(family), request_for(family)
    latents = sample(pipe, AUTO, request, SEQUENTIAL).latents
    with pytest.raises(PictureError, match="vae") as caught:
        decode(overflowing(pipe, value), AUTO, request, latents)
    assert caught.value.kind == "non_finite"
    assert "decode" not in vars(pipe.vae)
    assert not pipe.vae.decoder._forward_hooks


def test_the_remedy_for_a_vae_of_half_precision_is_one_of_single(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, request = build("sd3", torch.bfloat16), request_for("sd3")
    latents = sample(pipe, AUTO, request, SEQUENTIAL).latents
    with pytest.raises(PictureError) as caught:
        decode(overflowing(pipe, np.nan), AUTO, request, latents)
    assert "model.dtype: {vae: float32}" in caught.value.remedy


def test_tiles_and_slices_hide_nothing() -> None:
    pipe, request = build("sd3"), request_for("sd3")
    latents = sample(pipe, AUTO, request, SEQUENTIAL).latents
    pipe.vae.enable_tiling()
    pipe.vae.enable_slicing()
    with pytest.raises(PictureError, match="NaN"):
        decode(overflowing(pipe, np.nan), AUTO, request, latents)


def test_latents_that_are_not_finite_are_not_decoded() -> None:
    pipe, request = build("ddpm"), request_for("ddpm")
    latents = sample(pipe, AUTO, request, SEQUENTIAL).latents
    latents[0, 0, 0, 0] = np.nan
    with pytest.raises(PictureError, match="the final latents: 1 of"):
        decode(pipe, AUTO, request, latents)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("wan21", {"num_frames": 10}, "WanPipeline needs 4 n . 1 frames; the nearest is 9"),
        ("flux", {"height": 40}, "FluxPipeline needs a multiple of 16"),
        ("sd3", {"num_frames": 5}, "StableDiffusion3Pipeline makes images: leave num_frames out"),
        ("ddpm", {"height": 40}, "height"),
        ("ddpm", {"guidance_scale": 2.0}, "guidance_scale"),
        ("sd3", {"options": {"num_images_per_prompt": 2}}, "num_images_per_prompt: 2: an item is one picture"),
    ],
)
def test_what_a_pipeline_would_round_or_ignore_is_refused_before_sampling(
    family: str, changes: dict[str, Any], message: str
) -> None:
    pipe, request = build(family), request_for(family)
    check_request(pipe, AUTO, request)
    other = SamplingRequest(request.prompt, 0, {**request.sampling, **changes}, request.negative_prompt)
    with pytest.raises(PictureError, match=message):
        check_request(pipe, AUTO, other)


def test_an_empty_negative_prompt_reaches_the_pipeline() -> None:
    pipe = build("sd3")
    assert call_arguments(pipe, AUTO, SamplingRequest("a", 0, {"steps": 1}, ""))["negative_prompt"] == ""
    assert "negative_prompt" not in call_arguments(pipe, AUTO, SamplingRequest("a", 0, {"steps": 1}))


def test_a_failure_of_a_picture_keeps_its_kind_and_remedy() -> None:
    error = DecodeError.of(PictureError("non_finite", "3 values are NaN", "use float32"))
    found = describe(error, rank=0, log="")
    assert (found["kind"], found["message"]) == ("non_finite", "3 values are NaN")
    assert found["remedy"] == "The latents are kept. use float32"
    plain = describe(DecodeError.of(ValueError("broken")), rank=0, log="")
    assert (plain["kind"], plain["message"]) == ("decode", "ValueError: broken")


@pytest.mark.parametrize(
    ("output", "knows_fps", "kinds"),
    [
        (images(1, 4, 4, 3, nsfw_content_detected=[True]), True, [SAFETY_CHECKER]),
        (images(1, 4, 4, 3), True, [BLANK]),
        (SimpleNamespace(frames=np.linspace(0, 1, 96, dtype=np.float32).reshape(1, 2, 4, 4, 3)), False, [FPS_ASSUMED]),
        (SimpleNamespace(frames=np.linspace(0, 1, 96, dtype=np.float32).reshape(1, 2, 4, 4, 3)), True, []),
    ],
)
def test_what_pictures_show_is_noted(output: Any, knows_fps: bool, kinds: list[str]) -> None:
    found = Engine({}).notes(make_item(1), Decoded(pictures_of(output), 8, knows_fps))
    assert [note.kind for note in found] == kinds


@pytest.mark.parametrize("part", ["transformer", "text_encoder_3"])
def test_weights_that_are_not_finite_are_named(part: str) -> None:
    pipe = build("sd3")
    name, weight = next(iter(getattr(pipe, part).named_parameters()))
    weight.data.view(-1)[3] = torch.nan
    with pytest.raises(PictureError, match=rf"step 0 .* of the pipeline's {part}, 1 of .* '{name}'") as caught:
        sample(pipe, AUTO, request_for("sd3"), SEQUENTIAL)
    assert caught.value.kind == "non_finite"


def test_a_text_encoder_that_overflows_fails_the_encoding_of_its_prompt() -> None:
    pipe = build("sd3")
    with pytest.raises(PictureError, match="in the encoded prompt: a text encoder overflows") as caught:
        check_encodings(pipe, {"a": (torch.ones(2), [None, torch.full((2,), torch.nan)])})
    assert "float32" in caught.value.remedy
    check_encodings(pipe, {"a": torch.full((2,), -torch.inf)})
    pipe.text_encoder.text_model.final_layer_norm.weight.data.fill_(torch.nan)
    with pytest.raises(PictureError, match=r"of the pipeline's text_encoder, .* 'text_model.final_layer_norm.weight'"):
        encode(pipe, AUTO, request_for("sd3"))
