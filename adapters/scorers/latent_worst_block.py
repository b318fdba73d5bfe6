"""The worst spot of the final latents: what an average over the whole sample would hide.

    latent_worst_block = max over blocks b of sqrt(mean_b((z - z_ref)^2)) / std(z_ref)

A block spans all channels and 8 x 8 places of one latent frame (the whole map if it is smaller; blocks at the right and
lower edge are narrower where 8 does not divide the size), or 64 consecutive tokens of packed latents (B, S, C).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from genrun.adapters.scorers.contract import Sample, UnscoredError
from genrun.adapters.scorers.latent_rmse import squared_error

if TYPE_CHECKING:
    from torch import Tensor

    from genrun.adapters.shapes import Errors

# 64 x 64 pixels under a VAE that shrinks sides by 8.
BLOCK_SIDE = 8
BLOCK_TOKENS = BLOCK_SIDE**2

# By which video VAEs shrink time.
STRIDES = (1, 2, 4, 8)


@dataclass(frozen=True)
class LatentWorstBlock:
    """Largest RMSE of a block of latents / std(sequential latents)."""

    name: str = "latent_worst_block"
    version: int = 1
    title: str = "worst block"
    definition: str = (
        "The largest root mean square difference of the latents over blocks of 8 x 8 places of one latent frame (64 "
        "tokens of packed latents), divided by the standard deviation of the sequential latents."
    )
    higher_is_better: bool = False
    bounds: tuple[float, float] = (0.0, math.inf)
    style: Literal["number"] = "number"
    reads: Literal["latents"] = "latents"
    compares: bool = True

    def measure(self, sample: Sample, reference: Sample | None, /) -> Mapping[str, float]:
        """Return {"latent_worst_block": value}."""
        error, spread = squared_error(sample, reference)
        return {self.name: worst_block(error, spread, sample.num_frames)}


def worst_block(error: Errors, spread: float, num_frames: int | None = None) -> float:
    """Return the largest RMSE of a block / spread, from what `latent_rmse.difference` returns.

    Raises:
        UnscoredError: latents of a number of dimensions that has no blocks.
    """
    return block_means(error, frame_axis(error.shape, num_frames)).max().sqrt().item() / spread


def block_means(error: Errors, frame_axis: int = 2) -> Tensor:
    """Return the mean of every block.

    Args:
        error: (B, C, T, H, W) or (B, T, C, H, W) as `frame_axis` says, (B, C, H, W), or tokens (B, S, C).
        frame_axis: axis of frames in five dimensions, 1 or 2.

    Raises:
        UnscoredError: latents of another number of dimensions.
    """
    from torch.nn.functional import avg_pool1d, avg_pool2d

    if error.ndim == 3:
        return avg_pool1d(error.mean(dim=2)[:, None], min(BLOCK_TOKENS, error.shape[1]), ceil_mode=True)
    if error.ndim == 4:
        maps = error.mean(dim=1, keepdim=True)
    elif error.ndim == 5:
        maps = error.mean(dim=3 - frame_axis)
    else:
        raise UnscoredError(f"latents of {error.ndim} dimensions have no blocks")
    sides = (min(BLOCK_SIDE, maps.shape[-2]), min(BLOCK_SIDE, maps.shape[-1]))
    return avg_pool2d(maps, sides, ceil_mode=True)


def frame_axis(shape: Sequence[int], num_frames: int | None) -> int:
    """Tell which axis of 5-dimensional latents counts frames: 2 as in (B, C, T, H, W), or 1 as in (B, T, C, H, W).

    Pipelines differ, and no config says it. A video VAE keeps the first frame and every 1st, 2nd, 4th or 8th after it,
    so axis 1 counts frames where its size alone is such a number; in doubt it is channels, as in most pipelines.
    """
    if len(shape) != 5 or not num_frames:
        return 2
    possible = {(num_frames - 1) // stride + 1 for stride in STRIDES}
    return 1 if shape[1] in possible and shape[2] not in possible else 2


METRIC = LatentWorstBlock()
