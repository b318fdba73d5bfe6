"""What the papers' authors published, run on a model of the zoo: ParaDiGMS as diffusers has it, ParaSolver from a clone."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from tests.bench.papers.measure import Lab, Measured, Setting
from tests.bench.zoo.published import importing, quiet
from tests.bench.zoo.sampling import rmse


def paradigms(lab: Lab, setting: Setting, window: int, tolerance: float) -> Measured:
    """Measure StableDiffusionParadigmsPipeline with DDIMParallelScheduler, which are by the authors of ParaDiGMS."""
    diffusers = import_module("diffusers")
    pipe = _with(lab, setting, diffusers.StableDiffusionParadigmsPipeline, diffusers.DDIMParallelScheduler)

    def sample(caption: str, generator: torch.Generator) -> Tensor:
        return pipe(
            caption,
            num_inference_steps=setting.steps,
            parallel=window,
            tolerance=tolerance,
            guidance_scale=setting.guidance,
            generator=generator,
            output_type="latent",
        ).images

    return _measured(lab, setting, pipe, sample)


def parasolver(lab: Lab, setting: Setting, clone: Path, window: int, tolerance: float) -> Measured:
    """Measure `parasolver_forward` of a clone of github.com/Jianrong-Lu/ParaSolver, one process, M = 1, guidance 7.5."""
    with importing(clone):
        pipeline = import_module(
            "sd_parasolver.stablediffusion_parasolver_ddim_mp"
        ).ParaSolverDDIMStableDiffusionPipeline
        scheduler = import_module("sd_parasolver.paraddim_scheduler").ParaDDIMScheduler
    pipe = _with(lab, setting, pipeline, scheduler)

    def sample(caption: str, generator: torch.Generator) -> Tensor:
        # It times itself with CUDA events, and prints.
        with mock.patch("torch.cuda.Event"), mock.patch("torch.cuda.synchronize"), quiet():
            found, _ = pipe.parasolver_forward(
                caption,
                num_inference_steps=setting.steps,
                num_time_subintervals=setting.steps,
                num_preconditioning_steps=1,
                parallel=window,
                tolerance=tolerance,
                output_type="latent",
                full_return=False,
                device="cpu",
                generator=generator,
                num_consumers=1,
            )
        return found.images

    return _measured(lab, setting, pipe, sample)


def _with(lab: Lab, setting: Setting, pipeline: Any, scheduler: Any) -> Any:
    """Return an author's pipeline with the model's components."""
    sampler, _, _ = lab.sampler(setting)
    model = sampler.pipe
    parts = model.vae, model.text_encoder, model.tokenizer, model.unet
    made = pipeline(*parts, scheduler.from_config(sampler.scheduler.config), None, None, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def _measured(lab: Lab, setting: Setting, pipe: Any, sample: Callable[[str, torch.Generator], Tensor]) -> Measured:
    """Sample every pair, and count the calls of the U-Net and their rows, of which guidance takes two."""
    sampler, pairs, references = lab.sampler(setting)
    captions = sampler.model.pictures().captions
    rounds, nfe, errors = [], [], []
    for pair, reference in zip(pairs, references, strict=True):
        rows: list[int] = []
        hook = pipe.unet.register_forward_pre_hook(lambda _, given, rows=rows: rows.append(len(given[0])))
        latents = sample(captions[pair.caption], torch.Generator().manual_seed(pair.seed))
        hook.remove()
        rounds.append(len(rows))
        nfe.append(sum(rows) / 2)
        errors.append(rmse(latents, reference.x))
    return Measured(*map(statistics.fmean, (rounds, nfe, errors)))
