"""Training data of the zoo: pictures that ship with scikit-learn and scikit-image, and the demo world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from genrun.adapters.demo.world import draw, scenes

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PHOTOGRAPHS = {
    "astronaut": "astronaut",
    "cat": "chelsea",
    "coffee": "coffee",
    "galaxies": "hubble_deep_field",
    "tissue": "immunohistochemistry",
    "retina": "retina",
    "rocket": "rocket",
}
"""Captions, of few letters since tokenizers of the demo world spell them out, and scikit-image's names."""
SIDE_PX = 16
"""Side of digits, photographs and faces as the models see them."""


@dataclass(frozen=True)
class Pictures:
    """A source of captioned pictures.

    Attributes:
        captions: every caption there is; the empty one is not among them.
        draw: a picture of a caption, by its number: (3, T, H, W) in -1..1, T = 1 for an image.
    """

    captions: tuple[str, ...]
    draw: Callable[[int, np.random.Generator], Tensor]


def digits() -> Pictures:
    """Handwritten digits of scikit-learn (1,797 of 8x8 pixels, here 16x16), by their names."""
    images, labels = _digits()

    def pick(caption: int, rng: np.random.Generator) -> Tensor:
        of_it = np.flatnonzero(labels == caption)
        return images[int(rng.choice(of_it))]

    return Pictures(DIGITS, pick)


@cache
def _digits() -> tuple[Tensor, np.ndarray]:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pixels = torch.from_numpy(images.astype(np.float32)).view(-1, 1, 8, 8) / 8 - 1
    return _scaled(pixels)[:, :, None].expand(-1, 3, -1, -1, -1), labels


def photographs() -> Pictures:
    """Random windows of scikit-image's photographs in colour, by the photograph's name; mirrored or not."""
    whole = _photographs()

    def pick(caption: int, rng: np.random.Generator) -> Tensor:
        picture = whole[caption]
        top, left = (int(rng.integers(size - SIDE_PX + 1)) for size in picture.shape[1:])
        window = picture[:, top : top + SIDE_PX, left : left + SIDE_PX]
        return (window.flip(-1) if rng.random() < 0.5 else window)[:, None]

    return Pictures(tuple(PHOTOGRAPHS), pick)


@cache
def _photographs() -> list[Tensor]:
    import skimage.data

    pixels = (getattr(skimage.data, name)() for name in PHOTOGRAPHS.values())
    return [_small(torch.from_numpy(np.asarray(each)).movedim(-1, 0)[None].float() / 127.5 - 1)[0] for each in pixels]


def faces() -> Pictures:
    """scikit-image's 100 faces and 100 other pictures (25x25 pixels, here 16x16), mirrored or not."""
    images = _faces()

    def pick(caption: int, rng: np.random.Generator) -> Tensor:
        image = images[100 * caption + int(rng.integers(100))]
        return image.flip(-1) if rng.random() < 0.5 else image

    return Pictures(("face", "nothing"), pick)


@cache
def _faces() -> Tensor:
    import skimage.data

    pixels = torch.from_numpy(skimage.data.lfw_subset().astype(np.float32))[:, None] * 2 - 1
    return _scaled(pixels)[:, :, None].expand(-1, 3, -1, -1, -1)


def shapes(frames: int = 1) -> Pictures:
    """The demo world's training half: images, or clips where there are more frames than one."""
    world = scenes("video" if frames > 1 else "image", "train")

    def pick(caption: int, rng: np.random.Generator) -> Tensor:
        return torch.from_numpy(draw(world[caption], rng, frames)).movedim(-1, 0) * 2 - 1

    return Pictures(tuple(scene.caption for scene in world), pick)


def _scaled(pixels: Tensor) -> Tensor:
    return interpolate(pixels, size=(SIDE_PX, SIDE_PX), mode="bilinear", antialias=True, align_corners=False)


def _small(picture: Tensor) -> Tensor:
    """A photograph at 64 rows, so that a window shows more of it than a texture."""
    height, width = picture.shape[-2:]
    return interpolate(picture, size=(64, round(64 * width / height)), mode="area")
