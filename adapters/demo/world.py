"""A small synthetic world: one coloured shape on a plain background, moving (clips) or lying somewhere (images).

The world is the training set of the demo models and the yardstick that their output is measured with. Captions and
scenes are the same thing written twice: ``Scene.caption`` and ``parse_caption`` are inverse to each other.
"""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Rgb = tuple[float, float, float]
Kind = Literal["video", "image"]
Split = Literal["train", "held-out"]

FRAME_PX = 64
CLIP_FRAMES = 9
SPEED_PX = 2.0
JITTER_PX = 4.0
HELD_OUT_PERCENT = 15

COLOURS: dict[str, Rgb] = {
    "red": (0.90, 0.10, 0.10),
    "green": (0.10, 0.80, 0.20),
    "blue": (0.15, 0.25, 0.95),
    "yellow": (0.95, 0.85, 0.10),
    "white": (0.97, 0.97, 0.97),
    "purple": (0.60, 0.15, 0.80),
}
BACKGROUNDS: dict[str, Rgb] = {
    "black": (0.03, 0.03, 0.03),
    "gray": (0.50, 0.50, 0.50),
    "navy": (0.05, 0.08, 0.30),
    "brown": (0.35, 0.20, 0.08),
}
SHAPES = ("circle", "square", "triangle")
RADII_PX = {"small": 10.0, "large": 15.0}
MOTIONS: dict[str, tuple[int, int]] = {
    "left": (0, -1),
    "right": (0, 1),
    "up": (-1, 0),
    "down": (1, 0),
    "nowhere": (0, 0),
}
PLACES: dict[str, tuple[float, float]] = {
    "top left": (20.0, 20.0),
    "top right": (20.0, 44.0),
    "bottom left": (44.0, 20.0),
    "bottom right": (44.0, 44.0),
    "center": (32.0, 32.0),
}


@dataclass(frozen=True)
class Scene:
    """The attributes of a caption.

    ``where`` is a motion (a key of ``MOTIONS``) in a clip, a place (a key of ``PLACES``) in an image.
    """

    size: str
    colour: str
    shape: str
    where: str
    background: str

    @property
    def kind(self) -> Kind:
        """``"video"`` if the scene moves (or stands still in time), ``"image"`` if it has a place."""
        return "video" if self.where in MOTIONS else "image"

    @property
    def caption(self) -> str:
        """The scene in words, such as ``a small red circle moving left on gray``."""
        verb = "moving" if self.kind == "video" else "at the"
        return f"a {self.size} {self.colour} {self.shape} {verb} {self.where} on {self.background}"

    @property
    def split(self) -> Split:
        """The side of the fixed train / held-out split that the combination lies on (by hash of the caption)."""
        digest = hashlib.sha256(self.caption.encode()).digest()
        return "held-out" if digest[0] * 100 // 256 < HELD_OUT_PERCENT else "train"


def parse_caption(caption: str) -> Scene:
    """Read a scene back from its caption.

    Raises:
        ValueError: if the caption is not a sentence of this world's grammar.
    """
    words = caption.split()
    shape_at = next((i for i, word in enumerate(words) if word in SHAPES), -1)
    if shape_at == 3 and len(words) >= 8 and words[-2] == "on":
        scene = Scene(words[1], words[2], words[3], " ".join(words[6 - (words[4] == "moving") : -2]), words[-1])
        known = scene.where in MOTIONS or scene.where in PLACES
        known &= scene.size in RADII_PX and scene.colour in COLOURS and scene.background in BACKGROUNDS
        if known and scene.caption == caption:
            return scene
    raise ValueError(
        f"{caption!r} is not a caption of the demo world; "
        "write 'a small red circle moving left on gray' or 'a large white square at the top left on navy'"
    )


def scenes(kind: Kind, split: Split) -> list[Scene]:
    """List all scenes of one kind on one side of the split, in a fixed order."""
    wheres = MOTIONS if kind == "video" else PLACES
    combinations = itertools.product(RADII_PX, COLOURS, SHAPES, wheres, BACKGROUNDS)
    return [scene for scene in itertools.starmap(Scene, combinations) if scene.split == split]


def vocabulary() -> tuple[str, ...]:
    """List every word that a caption can hold, sorted."""
    every = (
        s.caption.split() for kind in ("video", "image") for half in ("train", "held-out") for s in scenes(kind, half)
    )
    return tuple(sorted({word for words in every for word in words}))


def coverage(
    shape: str, radius: float, center_y: np.ndarray, center_x: np.ndarray, size_px: int = FRAME_PX
) -> np.ndarray:
    """Return the anti-aliased share of each pixel that a shape covers.

    Args:
        shape: one of ``SHAPES``.
        radius: in pixels.
        center_y: (T,) vertical centres in pixels, downwards.
        center_x: (T,) horizontal centres in pixels.
        size_px: side of the square frame.

    Returns:
        (T, size_px, size_px) float32 in 0..1.
    """
    axis = np.arange(size_px, dtype=np.float32)
    y = axis[None, :, None] - center_y.astype(np.float32)[:, None, None]
    x = axis[None, None, :] - center_x.astype(np.float32)[:, None, None]
    if shape == "circle":
        distance = np.sqrt(y * y + x * x) - radius
    elif shape == "square":
        distance = np.maximum(abs(y), abs(x)) - 0.88 * radius
    else:
        distance = np.maximum(y - 0.7 * radius, 0.87 * abs(x) - 0.5 * (y + radius))
    return np.clip(0.5 - distance, 0.0, 1.0)


def path(scene: Scene, rng: np.random.Generator, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the shape's centre in each frame, (T,) and (T,) pixels: the caption fixes the course, ``rng`` a jitter."""
    step_y, step_x = MOTIONS.get(scene.where, (0, 0))
    anchor_y, anchor_x = PLACES.get(scene.where, PLACES["center"])
    jitter_y, jitter_x = rng.uniform(-JITTER_PX, JITTER_PX, 2)
    travelled = SPEED_PX * (np.arange(num_frames) - (num_frames - 1) / 2)
    return anchor_y + jitter_y + step_y * travelled, anchor_x + jitter_x + step_x * travelled


def draw(scene: Scene, rng: np.random.Generator, num_frames: int | None = None) -> np.ndarray:
    """Draw a scene.

    Args:
        scene: what to draw.
        rng: decides the jitter of the position; the same state draws the same pixels.
        num_frames: frames of the clip; 9 for a moving scene, 1 for an image if not given.

    Returns:
        (T, 64, 64, 3) float32 in 0..1.
    """
    frames = num_frames or (CLIP_FRAMES if scene.kind == "video" else 1)
    return paint(scene, *path(scene, rng, frames))


def paint(scene: Scene, center_y: np.ndarray, center_x: np.ndarray) -> np.ndarray:
    """Draw a scene's shape at given centres, (T,) rows and (T,) columns in pixels; returns what ``draw`` returns."""
    alpha = coverage(scene.shape, RADII_PX[scene.size], center_y, center_x)[..., None]
    ground, ink = (np.asarray(c, np.float32) for c in (BACKGROUNDS[scene.background], COLOURS[scene.colour]))
    return ground * (1 - alpha) + ink * alpha


def sample(choices: Sequence[Scene], rng: np.random.Generator) -> Scene:
    """Pick one scene uniformly."""
    return choices[int(rng.integers(len(choices)))]
