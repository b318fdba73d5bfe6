"""Small pictures of latents without their VAE: by a linear map to colours, or by a tiny autoencoder.

The map is fitted on decoded items. It takes the values of a place in the latents to colours of pixels there. Latents that a
pipeline packs into a sequence of tokens need no unpacking for it: what a token's values mean is part of what is fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from genrun.adapters.shapes import AnyFrames, Latents

MOST_PX = 384
"""Longest side of a preview."""

MOST_CHANNELS = 256
"""Most values at a place of latents that a map is fitted for; models have 4 to 128."""

FITTED_FRAMES = 4
"""Frames of a clip's latents that a map is fitted on, at most."""

RIDGE = 1e-4
"""Weight of small coefficients in the fit, as a part of the mean square of the values."""

GRAM, CROSS, ITEMS = "gram", "cross", "items"


@dataclass(frozen=True)
class Clip:
    """The size of what latents are decoded to.

    Attributes:
        frames: frames; 1 for a picture.
        height: in pixels.
        width: in pixels.
    """

    frames: int
    height: int
    width: int

    @classmethod
    def of(cls, frames: AnyFrames) -> Clip:
        """Return the size of decoded frames, (T, H, W, C)."""
        return cls(*frames.shape[:3])


def channels_of(pipe: Any) -> int | None:
    """Return the number of channels of a pipeline's latents before they are packed, as its VAE says."""
    config: Mapping[str, Any] = getattr(getattr(pipe, "vae", None), "config", {})
    found = (config.get(key) for key in ("latent_channels", "z_dim"))
    return next((number for number in found if isinstance(number, int)), None)


def places(latents: Latents, clip: Clip | None, channels: int | None = None) -> Tensor | None:
    """Return latents by place, (t, h, w, C); None where it cannot be told which value belongs where.

    Args:
        latents: of one sample, in the form of its pipeline's loop: (1, C, h, w), (1, C, t, h, w), (1, t, C, h, w), or packed
            (1, tokens, C).
        clip: what they are decoded to; packed ones are laid out by it.
        channels: of latents that are not packed, to tell frames from channels.
    """
    one = latents.detach()[0]
    if one.ndim == 3:
        return one.permute(1, 2, 0)[None]
    if one.ndim == 4:
        is_first = one.shape[0] == channels or one.shape[1] != channels
        return one.permute(1, 2, 3, 0) if is_first else one.permute(0, 2, 3, 1)
    if one.ndim != 2 or clip is None:
        return None
    for side in (1 << power for power in range(8)):
        area = (clip.height // side) * (clip.width // side)
        fits = clip.height % side == clip.width % side == 0 and len(one) % area == 0
        if fits and _lasts(len(one) // area, clip.frames):
            return one.reshape(-1, clip.height // side, clip.width // side, one.shape[1])
    return None


def _lasts(latent_frames: int, frames: int) -> bool:
    """Return whether so many frames of latents can stand for so many decoded ones, the first for one alone or not."""
    if latent_frames <= 1 or frames <= 1:
        return latent_frames == frames == 1
    return frames % latent_frames == 0 or (frames - 1) % (latent_frames - 1) == 0


class ColourMap:
    """The linear map from the values of a place to colours, by least squares over all items that it has seen.

    Attributes:
        items: how many it was fitted on.
        gram: of the values of places, with a constant: (C + 1, C + 1) float64.
        cross: of values and colours: (C + 1, 3 * pixels^2) float64.
    """

    def __init__(self, gram: Tensor, cross: Tensor, items: int) -> None:
        self.gram, self.cross, self.items = gram, cross, items
        self._map: Tensor | None = None

    @classmethod
    def empty(cls, channels: int) -> ColourMap:
        """Return a map of nothing yet, for so many values at a place."""
        # As many pixels for a place as its values can tell apart.
        side = max(side for side in (1, 2, 4) if side == 1 or 3 * side**2 <= channels)
        gram = torch.zeros(channels + 1, channels + 1, dtype=torch.float64)
        return cls(gram, gram.new_zeros(channels + 1, 3 * side**2), 0)

    @property
    def channels(self) -> int:
        """Values at a place."""
        return self.gram.shape[0] - 1

    @property
    def side(self) -> int:
        """Pixels on a side of what a place becomes."""
        return round((self.cross.shape[1] / 3) ** 0.5)

    def tensors(self) -> dict[str, Tensor]:
        """Return what is kept of the map."""
        return {GRAM: self.gram, CROSS: self.cross, ITEMS: torch.tensor(self.items)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> ColourMap:
        """Return a map that was kept. Raises ValueError for tensors that are none."""
        values = tensors[GRAM].shape[-1] if GRAM in tensors else 0
        if not 1 < values <= MOST_CHANNELS + 1:
            raise ValueError("no map to colours")
        right = cls.empty(values - 1).tensors()
        kinds = [{name: (each.shape, each.dtype) for name, each in found.items()} for found in (tensors, right)]
        if kinds[0] != kinds[1] or not all(bool(torch.isfinite(each).all()) for each in tensors.values()):
            raise ValueError("no map to colours, or one of other sizes")
        return cls(tensors[GRAM], tensors[CROSS], int(tensors[ITEMS]))

    def and_of(self, latents: Tensor, frames: AnyFrames) -> ColourMap:
        """Return the map that is fitted on another item, too.

        Args:
            latents: by place, (t, h, w, C).
            frames: decoded from them, uint8 (T, H, W, 1 to 4).
        """
        count = min(FITTED_FRAMES, len(latents))
        chosen = [round(each) for each in np.linspace(0, len(latents) - 1, count)]
        seconds = [round(place * (len(frames) - 1) / max(1, len(latents) - 1)) for place in chosen]
        colours = torch.from_numpy(np.ascontiguousarray(_rgb(frames[seconds]))).permute(0, 3, 1, 2).float() / 255
        height, width = latents.shape[1] * self.side, latents.shape[2] * self.side
        colours = functional.adaptive_avg_pool2d(colours, (height, width))
        wanted = functional.pixel_unshuffle(colours, self.side).permute(0, 2, 3, 1).flatten(0, 2).double()
        values = _with_constant(latents[chosen].double().cpu().flatten(0, 2))
        return ColourMap(self.gram + values.T @ values, self.cross + values.T @ wanted, self.items + 1)

    def picture(self, latents: Tensor) -> AnyFrames:
        """Return the middle frame of latents by place, (t, h, w, C), as uint8 (height, width, 3)."""
        found = self._map
        if found is None:
            scale = self.gram.diagonal().mean() * RIDGE
            ridge = scale * torch.eye(len(self.gram), dtype=self.gram.dtype)
            self._map = found = torch.linalg.solve(self.gram + ridge, self.cross)
        middle = latents[len(latents) // 2]
        colours = _with_constant(middle.float().flatten(0, 1)) @ found.to(middle.device, torch.float32)
        grid = colours.reshape(*middle.shape[:2], -1).permute(2, 0, 1)[None]
        return _bytes(functional.pixel_shuffle(grid, self.side)[0])


class TinyDecoder:
    """A tiny autoencoder of diffusers.

    Args:
        name: folder of its config.json and weights, or hub id.
        device: where it decodes.
    """

    def __init__(self, name: str, device: str) -> None:
        from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

        model: Any = AutoencoderTiny.from_pretrained(name)
        self._device, self._model = device, model.to(device).eval().requires_grad_(False)

    def picture(self, latents: Tensor) -> AnyFrames | None:
        """Return the middle frame of latents by place, (t, h, w, C), uint8 (height, width, 3); None for other channels."""
        middle = latents[len(latents) // 2].to(self._device, torch.float32).permute(2, 0, 1)[None]
        channels = self._model.config.latent_channels
        # Pipelines pack squares of four places into a token, channel by channel.
        if middle.shape[1] == 4 * channels:
            middle = functional.pixel_shuffle(middle, 2)
        if middle.shape[1] != channels:
            return None
        shrunk = MOST_PX / (2 ** (len(self._model.config.decoder_block_out_channels) - 1) * max(middle.shape[2:]))
        if shrunk < 1:
            middle = functional.interpolate(middle, scale_factor=shrunk, mode="area")
        return _bytes(self._model.decode(middle).sample[0] / 2 + 0.5)


def _with_constant(values: Tensor) -> Tensor:
    return torch.cat([values, values.new_ones(len(values), 1)], dim=1)


def _rgb(frames: AnyFrames) -> AnyFrames:
    return frames[..., :3] if frames.shape[-1] > 2 else frames[..., :1].repeat(3, axis=-1)


def _bytes(picture: Tensor) -> AnyFrames:
    """Return (3, H, W) in 0..1 as bytes, (H, W, 3)."""
    return (picture.nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
