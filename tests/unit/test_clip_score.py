"""clip_score: a matching caption scores above another one, whatever the batch; and a reason where it cannot be."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from genrun.adapters.demo.world import draw, parse_caption, scenes
from genrun.adapters.media import write_video
from genrun.adapters.scorers._options import identity, spread
from genrun.adapters.scorers.clip_score import DEMO, METRIC, ClipOptions, ClipScore
from genrun.adapters.scorers.contract import Sample, UnscoredError, settings_of
from genrun.adapters.training.clip import DEMO_CLIP, ClipRecipe, build_clip, visible
from genrun.adapters.training.train_clip import contrastive_loss, frames_of, train
from genrun.runner.score.scoring import score_run
from tests.sample_run import make_run

OWN = "a small red circle moving left on gray"
OTHERS = (
    "a large red circle moving left on gray",
    "a small blue circle moving left on gray",
    "a small red circle moving left on navy",
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "a.mp4"
    frames = draw(parse_caption(OWN), np.random.default_rng(0))
    write_video(path, (255 * frames).round().astype(np.uint8), fps=8)
    return path


def measured(clip: Path, caption: str, **options: Any) -> dict[str, float]:
    metric = ClipScore(ClipOptions(**options)) if options else METRIC
    return dict(metric.measure(Sample(caption, "demo-video", clip), None))


@pytest.mark.parametrize("other", OTHERS)
def test_the_own_caption_scores_above_one_with_another_size_colour_or_ground(clip: Path, other: str) -> None:
    assert measured(clip, OWN)["clip_score"] > measured(clip, other)["clip_score"] + 1


def test_a_frame_does_not_show_its_motion(clip: Path) -> None:
    own, other = (measured(clip, caption)["clip_score"] for caption in (OWN, OWN.replace("left", "right")))
    assert own == pytest.approx(other, abs=2)


def test_the_score_is_a_hundred_times_the_cosine_and_does_not_depend_on_the_batch(clip: Path) -> None:
    whole = measured(clip, OWN)
    assert whole["clip_score"] == pytest.approx(100 * whole["clip_score.cosine"], rel=1e-6)
    assert measured(clip, OWN, batch=2) == pytest.approx(whole, rel=1e-4)


def test_a_negative_cosine_counts_as_zero(clip: Path) -> None:
    found = measured(clip, "a large yellow triangle at the top left on brown")
    assert found["clip_score"] >= 0
    assert found["clip_score.cosine"] < 0.5


def test_the_score_is_that_of_transformers_own_similarity(clip: Path) -> None:
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(DEMO)
    frames = list(Sample(OWN, media=clip).frames[:1])
    pixels = CLIPImageProcessorPil.from_pretrained(DEMO)(frames, return_tensors="pt")["pixel_values"]
    tokens = CLIPTokenizer.from_pretrained(DEMO)([OWN], return_tensors="pt")
    with torch.inference_mode():
        answer = model(**tokens, pixel_values=pixels)
    expected = answer.logits_per_image.item() / model.logit_scale.exp().item()
    loaded = ClipScore(ClipOptions(frames=1, checkpoint=str(DEMO)))
    got = loaded.clip_of("demo-video").cosines(Sample(OWN, media=clip).frames[:1], OWN)
    assert got.item() == pytest.approx(expected, rel=1e-4)


def test_a_long_caption_is_cut_and_an_empty_one_refused(clip: Path) -> None:
    assert measured(clip, " ".join([OWN] * 20))["clip_score"] > 0
    with pytest.raises(UnscoredError, match="there is no caption"):
        measured(clip, " ")


def test_a_folder_without_a_clip_is_refused_without_asking_the_hub(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UnscoredError, match=r"no config\.json in that folder"):
        measured(clip, OWN, checkpoint=str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UnscoredError, match=r"no model\.safetensors in that folder"):
        measured(clip, OWN, checkpoint=str(tmp_path))


def test_a_broken_checkpoint_is_named_and_asked_for_once(clip: Path, tmp_path: Path) -> None:
    shutil.copytree(DEMO, tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").write_bytes(b"\0" * 64)
    metric = ClipScore(ClipOptions(checkpoint=str(tmp_path / "clip")))
    for _ in range(2):
        with pytest.raises(UnscoredError, match=r"clip cannot be loaded .*\{kind: clip_score, checkpoint: FOLDER\}"):
            metric.measure(Sample(OWN, "wan", clip), None)
        shutil.rmtree(tmp_path / "clip", ignore_errors=True)


def test_a_checkpoint_that_lacks_a_tensor_is_not_scored_with(clip: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DEMO, tmp_path / "clip"))
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("visual_projection.weight")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UnscoredError, match=r"its weights lack visual_projection\.weight"):
        measured(clip, OWN, checkpoint=str(folder))


def test_other_weights_or_frames_are_scored_again_and_another_device_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(DEMO, folder)
    metric = ClipScore(ClipOptions(checkpoint=str(folder)))
    before = settings_of(metric)
    assert settings_of(replace(metric, options=replace(metric.options, device="cuda", batch=1))) == before
    assert settings_of(replace(metric, options=replace(metric.options, frames=2))) != before
    (folder / "config.json").write_text(json.dumps({**json.loads((folder / "config.json").read_text()), "x": 1}))
    assert settings_of(metric) != before


def test_changed_options_replace_the_scores_of_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo" / "run", latents=False)
    first = score_run(run, [METRIC])
    assert all(row.value is not None for row in first)
    again = score_run(run, [ClipScore(ClipOptions(frames=1))])
    assert [row.item_id for row in again] == [row.item_id for row in first]
    assert [row.value for row in again] != [row.value for row in first]


@pytest.mark.parametrize(("length", "count", "expected"), [(9, 3, [1, 4, 7]), (2, 8, [0, 1]), (8, 8, list(range(8)))])
def test_frames_are_spread_over_the_clip(length: int, count: int, expected: list[int]) -> None:
    assert spread(np.arange(length), count).tolist() == expected


def test_a_large_file_is_known_by_its_ends_and_a_small_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = identity(path)
    path.write_bytes(b"two")
    assert identity(path) != first
    assert identity(tmp_path / "none") == "missing"


def test_captions_that_a_frame_cannot_tell_apart_share_it() -> None:
    clip = build_clip()
    left, right = (parse_caption(f"a small red circle moving {where} on gray") for where in ("left", "right"))
    assert visible(left) == visible(right)
    pixels = torch.from_numpy(frames_of([left, right], np.random.default_rng(0), 0.0))
    assert contrastive_loss(clip, pixels, [left, right]).item() >= np.log(2) - 1e-6


def test_training_lowers_the_loss_and_resumed_ends_with_the_same_weights(tmp_path: Path) -> None:
    recipe = ClipRecipe(steps=6, batch=6)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(recipe, whole, tmp_path / "work")
    train(recipe, cut, tmp_path / "work", resume=True)
    assert (whole / "model.safetensors").read_bytes() == (cut / "model.safetensors").read_bytes()
    said = scenes("image", "held-out")[:12]
    pixels = torch.from_numpy(frames_of(said, np.random.default_rng(1), 0.0))
    from transformers import CLIPModel

    trained = replace(build_clip(), model=CLIPModel.from_pretrained(DEMO_CLIP.weights))
    with torch.no_grad():
        assert contrastive_loss(trained, pixels, said) < 0.5 * contrastive_loss(build_clip(), pixels, said)


def test_the_shipped_folder_is_small() -> None:
    files = [path for path in DEMO_CLIP.weights.iterdir() if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors", ".md"}
    assert sum(path.stat().st_size for path in files) < 5e6
