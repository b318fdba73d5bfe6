"""Train a model of the zoo by one seeded command, and save it as an ordinary diffusers folder.

Everything random comes from the seed and the step's number, so that a training that was stopped goes on as if it had not
been.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genrun.adapters.training.loop import StepRandom, TrainingLoop
from genrun.adapters.training.objectives import reconstruction_loss

from .models import MODELS, Model, Text

CAPTION_DROP = 0.1
LATENTS = 2048
"""Pictures encoded once as the training set."""
EDM_NOISE = (-1.2, 1.2)
"""Mean and deviation of ln sigma (Karras et al., 2022, table 1)."""


@dataclass(frozen=True)
class Stage:
    """What the training loop reads of a stage."""

    name: str
    steps: int
    lr: float
    end: float = 0.02
    ema: float = 0.05


def train(name: str, root: Path, seed: int = 0, share: float = 1.0) -> Path:
    """Train a model, unless its folder is there, and return the folder.

    Args:
        name: a key of `MODELS`.
        root: folder of models; checkpoints lie beside the model's own folder while it is trained.
        seed: decides every random number.
        share: of the steps, for tests.
    """
    model, out, work = MODELS[name], root / name, root / f"{name}.training"
    if out.exists():
        return out
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipe = model.build()
    loop = TrainingLoop(
        work, seed, resume=True, save_every_s=60.0, log=lambda line: print(f"{name}: {line}", flush=True)
    )
    if model.vae_steps:
        train_vae(pipe.vae, model, loop, share)
    latents, captions = training_set(pipe, model, seed)
    text = texts(pipe, model)
    denoiser = pipe.transformer if hasattr(pipe, "transformer") else pipe.unet
    objective = objective_of(pipe)

    def loss(random: StepRandom) -> Tensor:
        picked = torch.from_numpy(random.numpy.integers(len(latents), size=model.batch))
        dropped = torch.from_numpy(random.numpy.random(model.batch) < CAPTION_DROP)
        said = torch.where(dropped, len(model.pictures().captions), captions[picked])
        return objective(denoiser, latents[picked], {key: part[said] for key, part in text.items()}, random)

    loop.fit(denoiser, Stage("denoiser", max(1, round(share * model.steps)), model.lr), loss)
    partial = root / f"{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    pipe.save_pretrained(partial, safe_serialization=True)
    partial.rename(out)
    shutil.rmtree(work)
    return out


def train_vae(vae: Any, model: Model, loop: TrainingLoop, share: float) -> None:
    """Train a VAE of 16x16 pixels on the model's own pictures."""
    pictures = model.pictures()

    def loss(random: StepRandom) -> Tensor:
        said = random.numpy.integers(len(pictures.captions), size=model.batch)
        return reconstruction_loss(vae, torch.stack([pictures.draw(int(k), random.numpy) for k in said]), random)

    loop.fit(vae, Stage("vae", max(1, round(share * model.vae_steps)), 2e-3, ema=0.0), loss)


@torch.no_grad()
def training_set(pipe: Any, model: Model, seed: int) -> tuple[Tensor, Tensor]:
    """Return latents in the denoiser's layout and scale, and their captions' numbers; sets the VAE's `scaling_factor`."""
    rng, pictures = np.random.default_rng([seed, LATENTS]), model.pictures()
    captions = rng.integers(len(pictures.captions), size=LATENTS)
    drawn = (pictures.draw(int(k), rng) for k in captions)
    vae = getattr(pipe, "vae", None)
    if vae is None:
        return torch.stack([each[:1, 0] for each in drawn]).contiguous(), torch.from_numpy(captions)
    frames = [vae.encode(each.movedim(1, 0)).latent_dist.mean for each in drawn]  # (T, C, h, w)
    stacked = torch.stack(frames)
    factor = model.scale / float(stacked.std())
    vae.register_to_config(scaling_factor=factor)
    latents = stacked.movedim(1, 2) if stacked.shape[1] > 1 else stacked[:, 0]
    return (latents * factor).contiguous(), torch.from_numpy(captions)


@torch.no_grad()
def texts(pipe: Any, model: Model) -> Text:
    """Return the text arguments of every caption, and last of the empty one."""
    rows = [model.encode(pipe, caption) for caption in (*model.pictures().captions, "")]
    return {key: torch.cat([row[key] for row in rows]) for key in rows[0]}


Objective = Callable[[nn.Module, Tensor, Text, StepRandom], Tensor]


def objective_of(pipe: Any) -> Objective:
    """Return the loss that a pipeline's scheduler asks for: (denoiser, latents, text, random) -> scalar."""
    scheduler, kind = pipe.scheduler, type(pipe.scheduler).__name__
    if kind.startswith("FlowMatch"):
        return lambda *given: flow_loss(scheduler, *given)
    return lambda *given: (edm_loss if kind.startswith("EDM") else diffusion_loss)(scheduler, *given)


def flow_loss(scheduler: Any, denoiser: Any, x: Tensor, text: Text, random: StepRandom) -> Tensor:
    """Noise - x on the line between them, at noise levels as the sampler visits them (Esser et al., 2024)."""
    uniform, shift = torch.rand(len(x), generator=random.torch), scheduler.config.shift
    sigma = shift * uniform / (1 + (shift - 1) * uniform)
    noise = torch.randn(x.shape, generator=random.torch)
    level = _column(sigma, x)
    output = predict(denoiser, (1 - level) * x + level * noise, 1000 * sigma, text)
    return (output - (noise - x)).square().mean()


def diffusion_loss(scheduler: Any, denoiser: Any, x: Tensor, text: Text, random: StepRandom) -> Tensor:
    """The noise (Ho et al., 2020), or v (Salimans and Ho, 2022), at uniform timesteps."""
    timesteps = torch.randint(0, len(scheduler.alphas_cumprod), (len(x),), generator=random.torch)
    noise = torch.randn(x.shape, generator=random.torch)
    velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(x, noise, timesteps) if velocity else noise
    return (predict(denoiser, scheduler.add_noise(x, noise, timesteps), timesteps, text) - target).square().mean()


def edm_loss(scheduler: Any, denoiser: Any, x: Tensor, text: Text, random: StepRandom) -> Tensor:
    """The clean sample through EDM's preconditioning, each noise level weighed alike (Karras et al., 2022)."""
    mean, deviation = EDM_NOISE
    sigma = (mean + deviation * torch.randn(len(x), generator=random.torch)).exp()
    level, data = _column(sigma, x), scheduler.config.sigma_data
    noisy = x + level * torch.randn(x.shape, generator=random.torch)
    output = predict(denoiser, scheduler.precondition_inputs(noisy, level), 0.25 * sigma.log(), text)
    weight = (level**2 + data**2) / (level * data) ** 2
    return (weight * (scheduler.precondition_outputs(noisy, output, level) - x).square()).mean()


def predict(denoiser: Any, noisy: Tensor, timesteps: Tensor, text: Text) -> Tensor:
    """Call a denoiser as its pipeline does: a predicted variance is dropped."""
    more = (
        {"added_cond_kwargs": {"resolution": None, "aspect_ratio": None}} if "PixArt" in type(denoiser).__name__ else {}
    )
    output = denoiser(noisy, timestep=timesteps, **text, **more).sample
    return output.chunk(2, dim=1)[0] if output.shape[1] == 2 * noisy.shape[1] else output


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))
