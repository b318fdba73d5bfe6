"""Pipelines of diffusers, read without being imported: the arguments of a call, and what no prompt can stand in for."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest

from genrun.adapters.checkpoint.call_types import as_declared, wrong_value
from genrun.adapters.checkpoint.pipeline_classes import (
    Parameter,
    argument_of,
    call_parameters,
    can_lack,
    is_exported,
    missing_inputs,
)

# Untyped on purpose: diffusers exports nothing to type checkers.
df: Any = import_module("diffusers")

SAMPLE = (
    "StableDiffusionPipeline",
    "StableDiffusion3Pipeline",
    "FluxKontextPipeline",
    "WanPipeline",
    "WanImageToVideoPipeline",
    "WanVACEPipeline",
    "LTX2Pipeline",
    "KandinskyV22CombinedPipeline",
    "StableDiffusionXLControlNetUnionPipeline",
    "DDPMPipeline",
    "DiTPipeline",
)


@pytest.mark.parametrize("name", SAMPLE)
def test_the_source_says_what_the_signature_says(name: str) -> None:
    parameters = inspect.signature(getattr(df, name).__call__).parameters.values()
    named = [one for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD) and one.name != "self"]
    assert call_parameters(name) == tuple(Parameter(one.name, one.default is one.empty) for one in named)


def test_a_call_that_is_inherited() -> None:
    assert call_parameters("AltDiffusionPipeline") is not None
    assert call_parameters("StableDiffusionPipelineSafe") is not None
    assert call_parameters("FluxPipeline") != call_parameters("FluxImg2ImgPipeline")


@pytest.mark.parametrize(
    "name", ["", "TomorrowsPipeline", "UNet2DModel", "DiffusionPipeline", "ImagePipelineOutput", "../x", "a b", "é"]
)
def test_what_is_no_pipeline_has_no_call(name: str) -> None:
    assert call_parameters(name) is None


def as_yaml(value: Any) -> Any:
    return [as_yaml(each) for each in value] if isinstance(value, tuple) else value


def test_no_pipelines_own_default_is_a_wrong_value() -> None:
    names = [name for name in dir(df) if name.endswith("Pipeline") and call_parameters(name)][::8]
    defaults = {
        (name, one.name): argument_of(name, one.name)[1] for name in names for one in call_parameters(name) or ()
    }
    written = {at: value for at, value in defaults.items() if value is not ...}
    assert len(written) > 300
    assert [(at, wrong) for at, value in written.items() if (wrong := wrong_value(*at, as_yaml(value)))] == []


@pytest.mark.parametrize(
    ("pipeline", "name", "right", "wrong"),
    [
        ("StableDiffusionXLPipeline", "guidance_rescale", [0, 0.5, True, None], [[0.5], "0.5", {}]),
        ("StableDiffusionXLPipeline", "original_size", [[8, 8], None], [[8], [8, 8, 8], 8, ["8", "8"]]),
        ("StableDiffusionXLPipeline", "prompt_2", ["a", ["a"], None], [3, {"a": 1}, [1]]),
        ("StableDiffusionControlNetPipeline", "controlnet_conditioning_scale", [1, [0.5, 1]], ["1", ["1"]]),
        ("StableDiffusionControlNetPipeline", "guess_mode", [True, 0], ["no", [True]]),
        ("StableDiffusionImg2ImgPipeline", "strength", [0, 1, 0.3], [-0.1, 1.5, "half"]),
        ("LTXPipeline", "frame_rate", [24, 24.5], [0, -1, "24"]),
        ("FluxPipeline", "max_sequence_length", [1, 512], [0, -3, 16.5]),
        ("FluxPipeline", "joint_attention_kwargs", [{"scale": 1}], [[], "x", 3]),
        ("LTX2Pipeline", "spatio_temporal_guidance_blocks", [[1, 2], []], [1, ["1"]]),
    ],
)
def test_values_are_held_to_what_a_call_declares(pipeline: str, name: str, right: Any, wrong: Any) -> None:
    assert [wrong_value(pipeline, name, value) for value in right] == [""] * len(right)
    assert all(wrong_value(pipeline, name, value) for value in wrong)


def test_a_list_becomes_a_tuple_where_a_call_declares_nothing_else() -> None:
    assert as_declared("StableDiffusionXLPipeline", "original_size", [96, 64]) == (96, 64)
    assert as_declared("StableDiffusionXLPipeline", "original_size", None) is None
    assert as_declared("LTX2Pipeline", "spatio_temporal_guidance_blocks", [1]) == [1]


def test_which_pipelines_can_be_named_in_a_checkpoint() -> None:
    assert is_exported("WanPipeline")
    assert not is_exported("TomorrowsPipeline")


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("WanImageToVideoPipeline", ("image",)),
        ("WanAnimatePipeline", ("image", "pose_video", "face_video")),
        ("MotifVideoImage2VideoPipeline", ("image",)),
        ("LTXImageToVideoPipeline", ("image",)),
        ("Kandinsky5I2VPipeline", ("image",)),
        ("StableDiffusionImg2ImgPipeline", ("image",)),
        ("StableDiffusionInpaintPipeline", ("image", "mask_image")),
        ("StableDiffusionControlNetPipeline", ("image",)),
        ("StableDiffusionXLControlNetPAGPipeline", ("image",)),
        ("FluxFillPipeline", ("image", "mask_image")),
        ("FluxControlPipeline", ("control_image",)),
        ("QwenImageEditPlusPipeline", ("image",)),
        ("CogVideoXVideoToVideoPipeline", ("video",)),
        ("AnimateDiffControlNetPipeline", ("conditioning_frames",)),
        ("StableDiffusionXLAdapterPipeline", ("image",)),
        ("KandinskyV22Pipeline", ("image_embeds", "negative_image_embeds")),
        ("StableVideoDiffusionPipeline", ("image",)),
    ],
)
def test_pipelines_that_text_alone_does_not_feed(name: str, inputs: tuple[str, ...]) -> None:
    assert missing_inputs(name) == inputs
    assert missing_inputs(name, frozenset({"image", "mask_image"})) == inputs


@pytest.mark.parametrize(
    "name",
    [
        "StableDiffusion3Pipeline",
        "AnimateDiffPipeline",
        "Flux2Pipeline",
        "Flux2KleinPipeline",
        "FluxKontextPipeline",
        "GlmImagePipeline",
        "HunyuanVideoPipeline",
        "JoyImageEditPipeline",
        "Kandinsky6TI2VAPipeline",
        "KandinskyV22CombinedPipeline",
        "LTXConditionPipeline",
        "QwenImage21Pipeline",
        "SkyReelsV2DiffusionForcingPipeline",
        "StableDiffusionModelEditingPipeline",
        "TextToVideoZeroPipeline",
        "WanPipeline",
        "WanVACEPipeline",
        "ZImageOmniPipeline",
        "DDPMPipeline",
    ],
)
def test_pipelines_that_text_or_a_seed_alone_feeds(name: str) -> None:
    assert missing_inputs(name) == ()


def test_labels_can_be_given_by_the_options_of_a_job() -> None:
    assert missing_inputs("DiTPipeline") == ("class_labels",)
    assert missing_inputs("DiTPipeline", frozenset({"class_labels"})) == ()


@pytest.mark.parametrize(
    ("pipeline", "component", "there", "can"),
    [
        ("StableDiffusion3Pipeline", "text_encoder_3", (), True),
        ("StableDiffusion3Pipeline", "tokenizer_3", ("text_encoder_2",), True),
        ("StableDiffusion3Pipeline", "tokenizer_3", ("text_encoder_3",), False),
        ("StableDiffusion3Pipeline", "tokenizer_2", (), False),
        ("StableDiffusion3Pipeline", "image_encoder", (), True),
        ("StableDiffusionPipeline", "safety_checker", (), True),
        # Optional in diffusers, for those who have embeddings already, or latents half denoised.
        ("StableDiffusionXLPipeline", "text_encoder_2", ("text_encoder",), False),
        ("PixArtSigmaPipeline", "text_encoder", (), False),
        ("PixArtSigmaPipeline", "tokenizer", (), False),
        ("WanPipeline", "transformer", ("transformer_2",), False),
        # Its code refuses to go without.
        ("LLaDA2Pipeline", "tokenizer", (), False),
    ],
)
def test_what_a_pipeline_can_go_without(pipeline: str, component: str, there: tuple[str, ...], can: bool) -> None:
    assert can_lack(pipeline, component, there) is can


def test_nothing_heavy_is_imported_for_it() -> None:
    code = (
        "import sys; from genrun.adapters.checkpoint.pipeline_classes import call_parameters;"
        "assert call_parameters('FluxPipeline');"
        "print({'torch', 'diffusers', 'transformers'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
