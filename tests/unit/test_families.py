"""What is known of a pipeline from its class and its configurations agrees with what it makes."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from genrun.adapters import registry
from genrun.adapters.checkpoint.diffusers_source import loops_of
from genrun.adapters.checkpoint.pipeline_classes import methods
from genrun.adapters.pipeline.families import FPS, Parts, fps_asked, informed, parts_at, parts_of
from genrun.runner.job.checkpoint import Checkpoint
from genrun.runner.job.checkpoint import parts_of as checkpoint_parts
from genrun.runner.job.checks.output import format_problem
from tests.tiny import build, call_kwargs

AUTO = registry.get("auto")


def frames_made(pipe: Any, family: str, asked: int) -> int:
    call = call_kwargs(family) | {"num_frames": asked, "num_inference_steps": 2, "output_type": "np"}
    return len(pipe(**call).frames[0])


@pytest.mark.parametrize("family", ["hunyuanvideo", "wan21", "wan22_5b", "cogvideox_ddim", "ltx"])
def test_a_number_of_frames_is_accepted_exactly_where_it_is_made(family: str) -> None:
    pipe = build(family)
    known = informed(AUTO, parts_of(pipe))
    assert known.kind == "video"
    for asked in (5, 8, 9, 10):
        is_accepted = not known.validate({"num_frames": asked})
        assert is_accepted == (frames_made(pipe, family, asked) == asked), asked


@pytest.mark.parametrize(("asked", "nearest"), [(2, 1), (3, 5), (4, 5), (6, 5), (10, 9)])
def test_the_nearest_number_of_frames(asked: int, nearest: int) -> None:
    known = informed(AUTO, Parts("WanPipeline", "AutoencoderKLWan"))
    ((field, message),) = known.validate({"num_frames": asked})
    assert field == "num_frames"
    assert message.endswith(f"the nearest is {nearest}")


@pytest.mark.parametrize(
    ("parts", "fps", "multiples"),
    [
        (Parts("WanPipeline", "AutoencoderKLWan"), 16, 16),
        (Parts("CogVideoXPipeline", "AutoencoderKLCogVideoX"), 8, 8),
        (Parts("CogVideoXPipeline", "AutoencoderKLCogVideoX", {}, {"patch_size_t": 2}), 16, 8),
        (Parts("LTXPipeline", "AutoencoderKLLTXVideo"), 25, 32),
        (Parts("MochiPipeline", "AutoencoderKLMochi"), 30, 8),
        (Parts("HunyuanVideoPipeline", "AutoencoderKLHunyuanVideo"), 24, 16),
        (Parts("FluxPipeline", "AutoencoderKL", {"block_out_channels": [1, 2, 3, 4]}), 8, 16),
    ],
)
def test_frame_rates_and_sizes_of_pipelines(parts: Parts, fps: int, multiples: int) -> None:
    known = informed(AUTO, parts)
    assert (known.fps, known.multiples) == (fps, multiples)


@pytest.mark.parametrize("name", FPS)
def test_what_is_listed_as_a_video_pipeline_is_one_of_diffusers(name: str) -> None:
    import diffusers

    assert name in diffusers._import_structure["pipelines"] or hasattr(diffusers, name)


UPSCALING = {"Kandinsky6SRPipeline", "LTX2DFRTemporalRefinePipeline"}
"""Pipelines that make clips of other pipelines' latents, at the frame rate of those."""


@pytest.mark.e2e
def test_every_pipeline_of_diffusers_that_samples_clips_is_listed_as_one() -> None:
    import diffusers

    calls = {name: methods(name).get("__call__") for name in dir(diffusers) if name.endswith("Pipeline")}
    returned = {name: ast.unparse(call).rpartition("return")[2] for name, call in calls.items() if call is not None}
    clips = {name for name, last in returned.items() if "frames=" in last}
    assert {name for name in clips if (loops := loops_of(name)) and loops.steps} - {*FPS} == UPSCALING


def test_defaults_stay_those_that_ids_were_made_of() -> None:
    known = informed(AUTO, Parts("WanPipeline", "AutoencoderKLWan"))
    assert (known.name, known.defaults, known.call, known.dtype) == (AUTO.name, AUTO.defaults, AUTO.call, AUTO.dtype)


def test_an_adapter_of_one_pipeline_keeps_its_rules() -> None:
    adapter = registry.get("wan2.1")
    assert informed(adapter, Parts("LTXPipeline", "AutoencoderKLLTXVideo")) is adapter


def test_a_pipeline_of_a_known_adapter_lacks_what_that_lacks() -> None:
    known = informed(AUTO, Parts("DDPMPipeline"))
    assert known.kind == "image"
    assert [field for field, _ in known.validate({"height": 32, "steps": 3})] == ["height"]


def test_a_pipeline_that_nobody_knows_is_left_alone() -> None:
    known = informed(AUTO, Parts("MinePipeline"))
    assert (known.kind, known.fps, known.knows_fps, known.validate({"num_frames": 7})) == (None, 8, False, [])


@pytest.mark.parametrize("config", [{"scale_factor_temporal": "four"}, {"scale_factor_temporal": -4}, {"x": [1]}])
def test_a_configuration_may_say_anything(config: dict[str, Any]) -> None:
    assert informed(AUTO, Parts("WanPipeline", "AutoencoderKLWan", config)).frames == (4, 1)


def test_parts_are_read_from_files_that_may_hold_anything() -> None:
    index = {"_class_name": "WanPipeline", "vae": ["diffusers", "AutoencoderKLWan"], "transformer": [None, None]}
    files: dict[str, Any] = {"model_index.json": index, "vae/config.json": ["no mapping"]}
    assert parts_at(files.get) == Parts("WanPipeline", "AutoencoderKLWan", index=index)
    assert parts_at({"model_index.json": {"_class_name": ["x"]}}.get) is None
    assert parts_at({}.get) is None


def test_a_frame_rate_that_the_model_is_told_is_the_clips() -> None:
    assert fps_asked({"options": {"frame_rate": 30}}) == 30
    assert fps_asked({"options": {"frame_rate": "30"}}) is None
    assert fps_asked({}) is None


WAN = {"_class_name": "WanPipeline", "vae": ["diffusers", "AutoencoderKLWan"]}
WAN_PARTS = Parts("WanPipeline", "AutoencoderKLWan", {"scale_factor_temporal": 4}, index=WAN)


def checkpoint(folder: Path) -> Path:
    """A folder with what is read of a pipeline without loading it."""
    for name, data in {"model_index.json": WAN, "vae/config.json": {"scale_factor_temporal": 4}}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data))
    return folder


def test_a_hub_id_is_known_where_the_cache_has_its_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert checkpoint_parts(Checkpoint("org/wan", None), None) is None
    cached = tmp_path / "models--org--wan"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    checkpoint(cached / "snapshots" / ("0" * 40))
    found = checkpoint_parts(Checkpoint("org/wan", None), None)
    assert found == WAN_PARTS


def test_a_folder_is_known_by_its_files(tmp_path: Path) -> None:
    found = checkpoint_parts(Checkpoint(str(tmp_path), checkpoint(tmp_path)), None)
    assert found == WAN_PARTS


@pytest.mark.parametrize(
    ("wanted", "kind", "frames", "is_right"),
    [
        ("png", "video", 9, False),
        ("png", "video", None, False),
        ("png", "video", 1, True),
        ("png", "image", None, True),
        ("png", None, None, True),
        ("mp4", "video", 9, True),
        ("mp4", "image", None, False),
        ("auto", "video", 9, True),
        ("auto", "image", None, True),
        (None, "video", 9, True),
    ],
)
def test_a_format_fits_what_a_model_makes(
    wanted: str | None, kind: str | None, frames: int | None, is_right: bool
) -> None:
    assert (format_problem(wanted, kind, frames) == "") == is_right
