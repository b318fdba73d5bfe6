"""Training objectives of the demo models: reconstruct pictures, and undo noise in latents."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genrun.adapters.demo.world import Scene, draw, sample
from genrun.adapters.training.loop import StepRandom
from genrun.adapters.training.recipe import VaeStage

# Deviation of the noise that the decoder learns to bear.
LATENT_NOISE = 0.03

# Keeps latents from growing without bound.
LATENT_PENALTY = 1e-4


def to_tensor(frames: np.ndarray) -> Tensor:
    """Convert (..., T, H, W, 3) in 0..1 to (..., 3, T, H, W) in -1..1."""
    return torch.from_numpy(np.moveaxis(frames, -1, -4)).contiguous() * 2 - 1


def pictures(scenes: list[Scene], stage: VaeStage, rng: np.random.Generator) -> Tensor:
    """Draw a batch of random windows of scenes, (B, 3, T, crop, crop) in -1..1."""
    drawn = np.stack([draw(sample(scenes, rng), rng, stage.frames) for _ in range(stage.batch)])
    top, left = rng.integers(0, drawn.shape[2] - stage.crop_px + 1, (2, stage.batch))
    rows = np.arange(stage.crop_px)
    windows = [clip[:, y + rows][:, :, x + rows] for clip, y, x in zip(drawn, top, left, strict=True)]
    return to_tensor(np.stack(windows))


def encode_mean(vae: Any, batch: Tensor) -> Tensor:
    """Return the latent means of (B, 3, T, H, W): (B, C, T', h, w) from a video VAE, (B, C, h, w) from an image VAE."""
    return vae.encode(for_vae(vae, batch)).latent_dist.mean


def for_vae(vae: Any, batch: Tensor) -> Tensor:
    """Drop a batch's time axis if the VAE takes images."""
    return batch if hasattr(vae.config, "temporal_compression_ratio") else batch.squeeze(2)


def reconstruction_loss(vae: Any, batch: Tensor, random: StepRandom) -> Tensor:
    """Measure a batch's distance to its reconstruction from slightly noisy latents, with a small penalty on their size."""
    batch = for_vae(vae, batch)
    mean = vae.encode(batch).latent_dist.mean
    noise = torch.randn(mean.shape, generator=random.torch).to(mean.device)
    error = vae.decode(mean + LATENT_NOISE * noise).sample - batch
    return error.abs().mean() + 2 * error.square().mean() + LATENT_PENALTY * mean.square().mean()


def psnr_db(vae: Any, batch: Tensor) -> float:
    """Measure the peak signal-to-noise ratio of the VAE's reconstructions of a batch in -1..1, in dB."""
    batch = for_vae(vae, batch)
    with torch.no_grad():
        error = vae.decode(vae.encode(batch).latent_dist.mean).sample - batch
    return float(10 * torch.log10(4 / error.square().mean()))


def velocity_loss(
    transformer: nn.Module, latents: Tensor, text: dict[str, Tensor], alphas: Tensor, random: StepRandom
) -> Tensor:
    """Compute the CogVideoX objective: predict v = sqrt(a) noise - sqrt(1 - a) x (Salimans and Ho, arXiv 2202.00512).

    Args:
        transformer: a CogVideoX transformer.
        latents: (B, T', C, h, w), scaled.
        text: its text arguments.
        alphas: (1000,) cumulative products of the scheduler.
        random: decides noise and timesteps.
    """
    timesteps = torch.randint(0, len(alphas), (len(latents),), generator=random.torch).to(latents.device)
    noise = torch.randn(latents.shape, generator=random.torch).to(latents.device)
    alpha = alphas[timesteps].view(-1, 1, 1, 1, 1)
    noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
    target = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
    return (transformer(noisy, timestep=timesteps, **text).sample - target).square().mean()


def flow_loss(
    transformer: nn.Module, latents: Tensor, text: dict[str, Tensor], shift: float, random: StepRandom
) -> Tensor:
    """Compute the SD3 objective: predict noise - x on the line between them (Esser et al., arXiv 2403.03206).

    Args:
        transformer: an SD3 transformer.
        latents: (B, C, h, w), shifted and scaled.
        text: its text arguments.
        shift: the scheduler's; noise levels are drawn as the sampler will visit them.
        random: decides noise and noise levels.
    """
    uniform = torch.rand(len(latents), generator=random.torch).to(latents.device)
    sigma = (shift * uniform / (1 + (shift - 1) * uniform)).view(-1, 1, 1, 1)
    noise = torch.randn(latents.shape, generator=random.torch).to(latents.device)
    noisy = (1 - sigma) * latents + sigma * noise
    output = transformer(noisy, timestep=1000 * sigma.flatten(), **text).sample
    return (output - (noise - latents)).square().mean()
