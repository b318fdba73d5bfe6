"""Give every latent channel mean 0 and deviation 1 by rewriting the VAE's own weights.

A pipeline scales its latents by one number. A channel with a large constant offset would then take most of the scale
and leave the transformer little signal to see. The maps at either end of the latent are linear, so the offset and the
scale of each channel move into them; only zero padding at the frame's border makes the decoder's side inexact, which
the training that follows repairs.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


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
