"""Metrics: known values, invariances, and a reason for everything that cannot be measured."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from genrun.adapters.demo.world import draw, parse_caption
from genrun.adapters.media import write_image, write_video
from genrun.adapters.scorers import registry
from genrun.adapters.scorers.checker import METRIC as CHECKER
from genrun.adapters.scorers.contract import Metric, Sample, UnscoredError
from genrun.adapters.scorers.latent_rmse import METRIC as LATENT_RMSE
from genrun.adapters.scorers.latent_worst_block import METRIC as WORST_BLOCK
from genrun.adapters.scorers.latent_worst_block import block_means, frame_axis
from genrun.adapters.scorers.psnr import METRIC as PSNR
from genrun.adapters.scorers.ssim import METRIC as SSIM
from genrun.adapters.scorers.temporal_flicker import METRIC as FLICKER
from genrun.registry import UnknownNameError

CAPTION = "a small red circle moving left on gray"
VIDEO_SHAPE = (1, 16, 3, 16, 24)


def latents_sample(path: Path, state: torch.Tensor) -> Sample:
    save_file({"latents": state}, path)
    return Sample(CAPTION, latents=path)


def image_sample(path: Path, frame: np.ndarray) -> Sample:
    write_image(path, frame)
    return Sample(CAPTION, media=path)


def clip_sample(path: Path, caption: str, drawn: str | None = None, adapter: str = "demo-video") -> Sample:
    frames = draw(parse_caption(drawn or caption), np.random.default_rng(0))
    write_video(path, (255 * frames).round().astype(np.uint8), fps=8)
    return Sample(caption, adapter, media=path)


def noise(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gray(side: int, level: int) -> np.ndarray:
    return np.full((side, side, 3), level, np.uint8)


def value(metric: Metric, sample: Sample, reference: Sample | None = None) -> float:
    return metric.measure(sample, reference)[metric.name]


def test_latent_rmse_is_the_formula(tmp_path: Path) -> None:
    ours, theirs = noise(VIDEO_SHAPE, 1), 3 * noise(VIDEO_SHAPE, 2) + 1
    measured = value(LATENT_RMSE, latents_sample(tmp_path / "a", ours), latents_sample(tmp_path / "b", theirs))
    expected = np.sqrt(np.mean((ours.numpy() - theirs.numpy()) ** 2.0)) / np.std(theirs.numpy())
    assert measured == pytest.approx(expected, rel=1e-5)


def test_latent_rmse_of_identical_latents_is_exactly_zero(tmp_path: Path) -> None:
    sample = latents_sample(tmp_path / "a", noise(VIDEO_SHAPE))
    assert value(LATENT_RMSE, sample, sample) == 0.0


@pytest.mark.parametrize("metric", [LATENT_RMSE, WORST_BLOCK])
def test_latent_distances_do_not_depend_on_the_scale_of_the_latents(metric: Metric, tmp_path: Path) -> None:
    ours, theirs = noise(VIDEO_SHAPE, 1), noise(VIDEO_SHAPE, 2)
    small = value(metric, latents_sample(tmp_path / "a", ours), latents_sample(tmp_path / "b", theirs))
    large = value(metric, latents_sample(tmp_path / "c", 8 * ours), latents_sample(tmp_path / "d", 8 * theirs))
    assert large == pytest.approx(small, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_latents_of_any_dtype_are_compared_as_numbers(dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = noise(VIDEO_SHAPE).to(dtype)
    measured = value(LATENT_RMSE, latents_sample(tmp_path / "a", theirs * 2), latents_sample(tmp_path / "b", theirs))
    rms = theirs.double().square().mean().sqrt().item()
    assert measured == pytest.approx(rms / theirs.double().std(correction=0).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("shape", "where"),
    [
        ((1, 4, 2, 16, 16), (0, slice(None), 1, slice(8, 16), slice(0, 8))),
        ((1, 4, 16, 16), (0, slice(None), slice(8, 16), slice(0, 8))),
        ((1, 256, 4), (0, slice(64, 128), slice(None))),
    ],
    ids=["video", "image", "tokens"],
)
def test_worst_block_finds_an_error_confined_to_one_block(
    shape: tuple[int, ...], where: tuple[int | slice, ...], tmp_path: Path
) -> None:
    theirs = noise(shape)
    ours = theirs.clone()
    ours[where] += 0.5
    measured = value(WORST_BLOCK, latents_sample(tmp_path / "a", ours), latents_sample(tmp_path / "b", theirs))
    assert measured == pytest.approx(0.5 / theirs.double().std(correction=0).item(), rel=1e-5)


@pytest.mark.parametrize("shape", [(1, 4, 3, 10, 13), (2, 4, 5, 7), (1, 100, 8), (1, 16, 3, 8, 8)])
def test_worst_block_is_at_least_the_rmse(shape: tuple[int, ...], tmp_path: Path) -> None:
    ours, theirs = latents_sample(tmp_path / "a", noise(shape, 1)), latents_sample(tmp_path / "b", noise(shape, 2))
    assert value(WORST_BLOCK, ours, theirs) >= value(LATENT_RMSE, ours, theirs)


def test_blocks_at_the_edge_hold_only_what_is_there() -> None:
    error = torch.ones(1, 2, 10, 9)
    assert block_means(error).tolist() == [[[[1, 1], [1, 1]]]]


def test_blocks_of_a_map_smaller_than_a_block_are_the_whole_map() -> None:
    error = noise((1, 4, 3, 5, 6)).square()
    assert block_means(error).flatten().tolist() == pytest.approx(error.mean(dim=(0, 1, 3, 4)).tolist())


def test_a_video_block_stays_in_one_latent_frame_in_both_layouts() -> None:
    error = torch.zeros(1, 4, 3, 8, 8)
    error[:, :, 1] = 1
    assert block_means(error, frame_axis=2).flatten().tolist() == [0, 1, 0]
    assert block_means(error.transpose(1, 2), frame_axis=1).flatten().tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("shape", "num_frames", "axis"),
    [
        ((1, 3, 16, 8, 8), 9, 1),
        ((1, 13, 16, 60, 90), 49, 1),
        ((1, 16, 21, 60, 104), 81, 2),
        ((1, 16, 16, 68, 120), 61, 2),
        ((1, 128, 16, 16, 22), 121, 2),
        ((1, 16, 3, 8, 8), None, 2),
    ],
    ids=["demo", "CogVideoX", "Wan", "HunyuanVideo", "LTX", "unknown"],
)
def test_the_axis_of_frames_is_told_by_the_number_of_frames(
    shape: tuple[int, ...], num_frames: int | None, axis: int
) -> None:
    assert frame_axis(shape, num_frames) == axis


def test_worst_block_refuses_latents_without_places(tmp_path: Path) -> None:
    ours, theirs = latents_sample(tmp_path / "a", noise((1, 8), 1)), latents_sample(tmp_path / "b", noise((1, 8), 2))
    with pytest.raises(UnscoredError, match="latents of 2 dimensions have no blocks"):
        value(WORST_BLOCK, ours, theirs)


@pytest.mark.parametrize("step", [1, 16, 100])
def test_psnr_of_a_uniform_difference_is_known(step: int, tmp_path: Path) -> None:
    measured = value(
        PSNR, image_sample(tmp_path / "a.png", gray(16, 100 + step)), image_sample(tmp_path / "b.png", gray(16, 100))
    )
    assert measured == pytest.approx(20 * math.log10(255 / step), rel=1e-5)


def test_psnr_of_identical_frames_is_a_hundred(tmp_path: Path) -> None:
    sample = clip_sample(tmp_path / "a.mp4", CAPTION)
    assert value(PSNR, sample, sample) == 100.0


def test_ssim_of_identical_clips_is_one(tmp_path: Path) -> None:
    sample = clip_sample(tmp_path / "a.mp4", CAPTION)
    assert value(SSIM, sample, sample) == pytest.approx(1.0, abs=1e-6)


def test_ssim_falls_with_noise(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    clean = rng.integers(40, 200, (32, 32, 3)).astype(np.uint8)
    reference = image_sample(tmp_path / "clean.png", clean)
    values = [
        value(SSIM, image_sample(tmp_path / f"{level}.png", noisy(clean, level, rng)), reference)
        for level in (2, 10, 30)
    ]
    assert 1 > values[0] > values[1] > values[2] > 0


def noisy(frame: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return np.clip(frame + level * rng.normal(size=frame.shape), 0, 255).astype(np.uint8)


def test_ssim_refuses_frames_smaller_than_its_window(tmp_path: Path) -> None:
    sample = image_sample(tmp_path / "a.png", gray(10, 0))
    with pytest.raises(UnscoredError, match="smaller than the window of 11 pixels"):
        value(SSIM, sample, sample)


def test_flicker_is_one_minus_the_mean_step_between_frames(tmp_path: Path) -> None:
    frames = np.zeros((3, 16, 16, 3), np.uint8)
    frames[1] += 51
    frames[2] += 51
    write_video(tmp_path / "a.mp4", frames, fps=8, crf=0)
    sample = Sample(CAPTION, media=tmp_path / "a.mp4")
    steps = [abs(int(b.mean()) - int(a.mean())) for a, b in zip(sample.frames[:-1], sample.frames[1:], strict=True)]
    assert value(FLICKER, sample) == pytest.approx(1 - np.mean(steps) / 255, abs=1e-6)
    assert value(FLICKER, sample) == pytest.approx(0.9, abs=5e-3)


def test_flicker_is_one_for_a_still_clip_and_falls_with_noise(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    still = np.full((5, 32, 32, 3), 120, np.uint8)
    values = []
    for level in (0, 4, 16):
        path = tmp_path / f"{level}.mp4"
        write_video(path, np.clip(still + level * rng.normal(size=still.shape), 0, 255).astype(np.uint8), 8, crf=1)
        values.append(value(FLICKER, Sample(CAPTION, media=path)))
    assert values[0] == 1.0
    assert values[0] > values[1] > values[2]


def test_a_picture_does_not_flicker(tmp_path: Path) -> None:
    with pytest.raises(UnscoredError, match="a single frame cannot flicker"):
        value(FLICKER, image_sample(tmp_path / "a.png", gray(16, 0)))


def test_checker_finds_every_attribute_of_a_right_clip(tmp_path: Path) -> None:
    measured = CHECKER.measure(clip_sample(tmp_path / "a.mp4", CAPTION), None)
    assert measured["checker"] == 1.0
    assert set(measured) == {"checker", *(f"checker.{part}" for part in PARTS)}
    assert set(measured.values()) == {1.0}


PARTS = ("background", "colour", "shape", "size", "direction")


def test_checker_names_the_attribute_that_is_wrong(tmp_path: Path) -> None:
    sample = clip_sample(tmp_path / "a.mp4", CAPTION, drawn="a small red square moving left on gray")
    measured = CHECKER.measure(sample, None)
    assert measured["checker"] == 0.0
    assert [part for part in PARTS if measured[f"checker.{part}"] == 0.0] == ["shape"]


def test_checker_does_not_judge_other_models_or_other_captions(tmp_path: Path) -> None:
    with pytest.raises(UnscoredError, match="the demo models only"):
        CHECKER.measure(clip_sample(tmp_path / "a.mp4", CAPTION, adapter="wan"), None)
    with pytest.raises(UnscoredError, match="of the demo world only"):
        CHECKER.measure(clip_sample(tmp_path / "a.mp4", "a cat", drawn=CAPTION), None)


@pytest.mark.parametrize("metric", [LATENT_RMSE, WORST_BLOCK, PSNR, SSIM])
def test_metrics_that_compare_say_when_there_is_nothing_to_compare_with(metric: Metric) -> None:
    with pytest.raises(UnscoredError, match="no sequential item"):
        metric.measure(Sample(CAPTION), None)


def test_missing_latents_name_the_option_that_saves_them(tmp_path: Path) -> None:
    with pytest.raises(UnscoredError, match=r"set output\.save_latents: true"):
        value(LATENT_RMSE, Sample(CAPTION), Sample(CAPTION))


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ({}, "holds 0 tensors"),
        ({"a": torch.ones(2), "b": torch.ones(2)}, "holds 2 tensors"),
        ({"a": torch.tensor([1.0, float("nan")])}, "not finite"),
    ],
    ids=["empty", "two", "nan"],
)
def test_latents_files_that_are_not_one_finite_tensor_are_not_scored(
    tensors: dict[str, torch.Tensor], reason: str, tmp_path: Path
) -> None:
    save_file(tensors, tmp_path / "a")
    with pytest.raises(UnscoredError, match=reason):
        value(LATENT_RMSE, Sample(CAPTION, latents=tmp_path / "a"), Sample(CAPTION))


def test_a_broken_file_is_a_reason_and_not_a_crash(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a film")
    with pytest.raises(UnscoredError, match="media file cannot be decoded"):
        value(PSNR, Sample(CAPTION, media=broken), Sample(CAPTION))
    with pytest.raises(UnscoredError, match="latents file cannot be read"):
        value(LATENT_RMSE, Sample(CAPTION, latents=broken), Sample(CAPTION))
    with pytest.raises(UnscoredError, match="media file is missing"):
        value(PSNR, Sample(CAPTION, media=tmp_path / "gone.mp4"), Sample(CAPTION))


def test_a_reason_says_when_it_is_the_reference_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UnscoredError, match="the sequential item: no latents"):
        value(LATENT_RMSE, latents_sample(tmp_path / "a", noise((1, 4, 8, 8))), Sample(CAPTION))
    with pytest.raises(UnscoredError, match="the sequential item: no media"):
        value(PSNR, image_sample(tmp_path / "a.png", gray(16, 0)), Sample(CAPTION))


def test_samples_of_different_shape_are_not_compared(tmp_path: Path) -> None:
    ours, theirs = (
        latents_sample(tmp_path / "a", noise((1, 4, 8, 8))),
        latents_sample(tmp_path / "b", noise((1, 4, 8, 9))),
    )
    with pytest.raises(UnscoredError, match="latents differ in shape"):
        value(LATENT_RMSE, ours, theirs)
    small, large = image_sample(tmp_path / "a.png", gray(16, 0)), image_sample(tmp_path / "b.png", gray(24, 0))
    with pytest.raises(UnscoredError, match="frames differ in shape"):
        value(PSNR, small, large)


def test_constant_reference_latents_have_no_scale(tmp_path: Path) -> None:
    flat = latents_sample(tmp_path / "a", torch.ones(1, 4, 8, 8))
    with pytest.raises(UnscoredError, match="constant"):
        value(LATENT_RMSE, flat, flat)


def test_the_registry_lists_the_metrics_of_the_folder() -> None:
    folder = Path(registry.__file__).parent
    modules = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")}
    modules |= {path.parent.name for path in folder.glob("*/metric.py")}
    assert set(registry.names()) == modules - {"contract", "registry"}
    assert {"clip_score", "psnr", "temporal_flicker"} <= modules


@pytest.mark.parametrize("name", registry.names())
def test_every_metric_describes_itself(name: str) -> None:
    metric = registry.get(name)
    assert metric.name == name
    assert metric.version >= 1
    assert metric.title
    assert metric.definition.endswith(".")


def test_an_unknown_metric_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown metric 'latent_rms'\. Did you mean 'latent_rmse'\?"):
        registry.get("latent_rms")


def test_looking_metrics_up_imports_no_torch() -> None:
    code = (
        "import sys; from genrun.adapters.scorers import registry; [registry.get(n) for n in registry.names()]; "
        "sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
