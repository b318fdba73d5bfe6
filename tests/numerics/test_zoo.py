"""The zoo's batches: a sample of many at once is the one that the pipeline makes alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from genrun.solvers import registry
from tests.bench.zoo.models import MODELS
from tests.bench.zoo.sampling import Sampler

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
