"""Training objectives of the demo models: reconstruct pictures, and undo noise in latents; and latents of one scale.

A pipeline scales its latents by one number. A channel with a large constant offset would then take most of the scale
and leave the transformer little signal to see. The maps at either end of the latent are linear, so the offset and the
scale of each channel move into them; only zero padding at the frame's border makes the decoder's side inexact, which
the training that follows repairs.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genrun.adapters.demo.world import Scene, draw, sample
from genrun.adapters.training.loop import StepRandom
from genrun.adapters.training.recipe import VaeStage


@torch.no_grad()
def standardise(vae: Any, latents: Tensor) -> None:
    """Fold the mean and deviation of each channel into the VAE's weights.

    Args:
        vae: an ``AutoencoderKLCogVideoX``, or an ``AutoencoderKL`` without quantisation convolutions.
        latents: (B, C, ...) latent means that the VAE gives.
    """
    rest = [0, *range(2, latents.ndim)]
    mean, deviation = latents.mean(rest), latents.std(rest)
    channels = len(mean)
    out = _convolution(vae.encoder.conv_out)
    out.weight[:channels] /= deviation.view(-1, *[1] * (out.weight.ndim - 1))
    out.bias[:channels] = (out.bias[:channels] - mean) / deviation
    for reader in _readers(vae):
        spread = [1] * (reader.weight.ndim - 2)
        reader.bias += (reader.weight * mean.view(1, -1, *spread)).flatten(1).sum(1)
        reader.weight *= deviation.view(1, -1, *spread)


def _readers(vae: Any) -> Iterator[Any]:
    """Iterate over the decoder's convolutions that read the latent itself."""
    yield _convolution(vae.decoder.conv_in)
    for module in vae.decoder.modules():
        # CogVideoX's norms modulate by the latent at every depth.
        if hasattr(module, "conv_y"):
            yield _convolution(module.conv_y)
            yield _convolution(module.conv_b)


def _convolution(module: nn.Module) -> Any:
    """Return the plain convolution, unwrapped from CogVideoX's causal padding."""
    return getattr(module, "conv", module)


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
