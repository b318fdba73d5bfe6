import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genrun.adapters.demo.world import scenes, vocabulary
from genrun.adapters.training import evaluate, train
from genrun.adapters.training.components import build_pipeline, clip_tokenizer, t5_tokenizer
from genrun.adapters.training.loop import StepRandom, TrainingLoop
from genrun.adapters.training.objectives import pictures
from genrun.adapters.training.recipe import DEMO_IMAGE, DEMO_VIDEO, RECIPES, Recipe, TransformerStage

pytestmark = pytest.mark.e2e

PLAN = TransformerStage(steps=6, batch=8, lr=0.1, caption_drop=0.0, ema=0.5, latents=8)


def silent(folder: Path, resume: bool = False) -> TrainingLoop:
    return TrainingLoop(folder, seed=3, resume=resume, save_every_s=0.0, log=lambda _: None)


def linear() -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(4, 4)


def noisy_regression(module: nn.Module, random: StepRandom) -> Tensor:
    inputs = torch.randn(PLAN.batch, 4, generator=random.torch) + float(random.numpy.random())
    return (module(inputs) - inputs.flip(1)).square().mean()


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = linear()
    silent(tmp_path / "whole").fit(whole, PLAN, lambda random: noisy_regression(whole, random))

    interrupted, calls = linear(), 0

    def stop_at_the_fourth(random: StepRandom) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return noisy_regression(interrupted, random)

    with pytest.raises(KeyboardInterrupt):
        silent(tmp_path / "cut").fit(interrupted, PLAN, stop_at_the_fourth)
    resumed = nn.Linear(4, 4)
    silent(tmp_path / "cut", resume=True).fit(resumed, PLAN, lambda random: noisy_regression(resumed, random))

    assert torch.equal(resumed.weight, whole.weight)
    assert torch.equal(resumed.bias, whole.bias)


def test_without_resume_a_checkpoint_is_ignored(tmp_path: Path) -> None:
    first, second = linear(), linear()
    for module in (first, second):
        silent(tmp_path).fit(module, PLAN, lambda random, module=module: noisy_regression(module, random))
    assert torch.equal(first.weight, second.weight)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    module = linear()
    before = noisy_regression(module, StepRandom.of(9, "test", 0)).item()
    plan = dataclasses.replace(PLAN, steps=200, lr=0.05)
    silent(tmp_path).fit(module, plan, lambda random: noisy_regression(module, random))
    assert noisy_regression(module, StepRandom.of(9, "test", 0)).item() < 0.2 * before


def test_every_step_and_stage_has_its_own_random_numbers() -> None:
    draws = [StepRandom.of(0, stage, step).numpy.random() for stage in ("a", "b") for step in (0, 1)]
    assert len(set(draws)) == 4
    assert StepRandom.of(0, "a", 1).numpy.random() == draws[1]


def test_pictures_are_windows_in_the_range_that_a_vae_takes() -> None:
    batch = pictures(scenes("video", "train"), DEMO_VIDEO.vae[1], np.random.default_rng(0))
    stage = DEMO_VIDEO.vae[1]
    assert batch.shape == (stage.batch, 3, stage.frames, stage.crop_px, stage.crop_px)
    assert -1 <= batch.min() < batch.max() <= 1


@pytest.mark.parametrize("make", [t5_tokenizer, clip_tokenizer])
def test_every_word_is_one_token_and_every_caption_fits(make) -> None:
    tokenizer = make()
    assert [w for w in vocabulary() if len(tokenizer(w, add_special_tokens=False).input_ids) != 1] == []
    longest = max((s.caption for s in scenes("image", "train")), key=lambda caption: len(caption.split()))
    assert len(tokenizer(longest).input_ids) <= DEMO_IMAGE.sampling.max_sequence_length


def test_untrained_pipelines_of_one_seed_are_equal_and_leave_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    one, same = build_pipeline(DEMO_IMAGE), build_pipeline(DEMO_IMAGE)
    assert torch.equal(torch.random.get_rng_state(), before)
    for part in ("vae", "transformer", "text_encoder", "text_encoder_3"):
        pairs = zip(one.components[part].parameters(), same.components[part].parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def shortest(recipe: Recipe) -> Recipe:
    vae = tuple(dataclasses.replace(stage, steps=1, batch=1, crop_px=16) for stage in recipe.vae)
    return dataclasses.replace(
        recipe, vae=vae, transformer=dataclasses.replace(recipe.transformer, steps=2, batch=2, latents=4)
    )


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_trained_folder_loads_with_the_stock_class_and_draws(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "held_out_psnr_db", lambda vae, recipe: float("nan"))
    recipe = shortest(RECIPES[name])
    train.train(recipe, tmp_path / "model", tmp_path / "work")

    saved = list((tmp_path / "model").rglob("*"))
    assert not [path for path in saved if path.suffix in {".bin", ".pt", ".pkl"}]
    assert sum(path.stat().st_size for path in saved if path.suffix == ".safetensors") < 10e6
    for path in (path for path in saved if path.suffix == ".json"):
        assert str(tmp_path) not in path.read_text()
        json.loads(path.read_text())

    pipe = evaluate.load(tmp_path / "model")
    assert evaluate.recipe_of(pipe).name == name
    brief = dataclasses.replace(recipe.sampling, num_inference_steps=2)
    frames = evaluate.generate(pipe, ["a small red circle", ""], [0, 1], brief)
    assert frames.shape == (2, recipe.sampling.num_frames, 64, 64, 3)
    assert frames.dtype == np.uint8


def test_held_out_pairs_are_no_training_captions_and_differ_in_their_seeds() -> None:
    for recipe in RECIPES.values():
        said, seeds = evaluate.held_out_pairs(recipe, 96)
        assert {scene.split for scene in said} == {"held-out"}
        assert len({scene.caption for scene in said}) == len(set(seeds)) == 96


def test_other_pipelines_are_no_demo_models() -> None:
    with pytest.raises(ValueError, match="demo-video"):
        evaluate.recipe_of(object())
