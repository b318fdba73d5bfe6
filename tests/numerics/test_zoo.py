"""The zoo's batches: a sample of many at once is the one that the pipeline makes alone, and so with the authors' code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from genrun.solvers import registry
from genrun.solvers.contract import Point
from tests.bench.zoo import published
from tests.bench.zoo.models import MODELS
from tests.bench.zoo.sampling import Sampler, rmse

STEPS, GUIDANCE = 4, 3.0


@pytest.mark.parametrize("name", ["dit-flow", "unet-edm"])
def test_a_sample_of_a_batch_is_that_of_the_pipeline(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    MODELS[name].build().save_pretrained(tmp_path / name)
    sampler = Sampler(name, tmp_path, STEPS, GUIDANCE)
    pairs = sampler.draw(2, seed=1)
    batch = sampler.sample(pairs, registry.get("sequential")())

    pipe, sampling = sampler.pipe, sampler.model.sampling
    pipe.set_progress_bar_config(disable=True)
    for pair, found in zip(pairs, batch, strict=True):
        alone = pipe(
            MODELS[name].pictures().captions[pair.caption],
            **{key: value for key, value in sampling.items() if key in ("height", "width")},
            **sampling.get("options", {}),
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(pair.seed),
            output_type="latent",
        )
        assert found.x.std() > 0.1
        assert (found.x - alone.images).abs().max() <= 2e-5 * found.x.abs().max()


@pytest.mark.parametrize("name", ["dit-flow", "video-dit"])
def test_a_cache_that_computes_everything_changes_nothing_and_counts_all_blocks(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    MODELS[name].build().save_pretrained(tmp_path / name)
    sampler = Sampler(name, tmp_path, 6, GUIDANCE)
    pairs = sampler.draw(2, seed=1)
    whole = published.cache_dit(sampler, pairs, 1e-9, taylor=0, warmup=1)
    for found, reference in zip(whole, sampler.sample(pairs, registry.get("sequential")()), strict=True):
        assert rmse(found.x, reference.x) < 1e-5
        assert found.rounds == 6
    # The first block alone, after two steps in full: of four, and of Latte's three in space and three in time.
    share = {"dit-flow": 1 / 4, "video-dit": 1 / 6}[name]
    cached = published.cache_dit(sampler, pairs, 1e9, taylor=1, warmup=2)
    assert [found.rounds for found in cached] == pytest.approx([2 + 4 * share] * 2)
    assert rmse(cached[0].x, whole[0].x) > 1e-4


def test_methods_in_threads_of_their_own_share_their_rounds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    MODELS["dit-flow"].build().save_pretrained(tmp_path / "dit-flow")
    sampler = Sampler("dit-flow", tmp_path, STEPS, GUIDANCE)
    pairs = sampler.draw(3, seed=1)
    steps = sampler.sample(pairs, registry.get("sequential")())

    def euler(sampler: Sampler, x: torch.Tensor, ask: published.Ask) -> torch.Tensor:
        sigmas = sampler.scheduler.sigmas
        for index in range(STEPS):
            x = x + (sigmas[index + 1] - sigmas[index]) * ask([Point(index, x)])[0]
        return x

    found = published.together(sampler, pairs, euler)
    assert [each.rounds for each in found] == [STEPS] * 3
    assert max(rmse(each.x, reference.x) for each, reference in zip(found, steps, strict=True)) < 1e-5

    def broken(sampler: Sampler, x: torch.Tensor, ask: published.Ask) -> torch.Tensor:
        raise ArithmeticError("of theirs")

    with pytest.raises(ArithmeticError, match="of theirs"):
        published.together(sampler, pairs, broken)
