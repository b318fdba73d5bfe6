"""Read a scene back from pixels, and compare it with a caption. Plain numpy: no model, no training, no judgement.

A picture that shows no clear shape has no attributes, so every comparison with it fails.
"""

from dataclasses import dataclass

import numpy as np

from genrun.adapters.demo.world import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    PLACES,
    RADII_PX,
    SHAPES,
    Kind,
    Rgb,
    Scene,
    coverage,
    parse_caption,
)

# Distance in RGB of 0..1 beyond which a colour is none of the palette; those of a palette are 0.28 apart or more.
COLOUR_TOLERANCE = 0.3
MIN_CONTRAST = 0.15

# Intersection over union below which even the best outline does not fit.
MIN_OVERLAP = 0.7

# A quarter of the smallest shape.
MIN_COVERED_PX = 40

# Moving shapes go 2 pixels a frame.
STILL_PX_PER_FRAME = 0.75

# Places are 12 to 24 pixels apart in each direction, and jitter is 4.
PLACE_TOLERANCE_PX = 8.5


@dataclass(frozen=True)
class Reading:
    """Attributes read from pixels; one that cannot be told is None.

    Attributes:
        size: a key of ``RADII_PX``.
        colour: a key of ``COLOURS``.
        shape: one of ``SHAPES``.
        where: a key of ``MOTIONS`` for a clip, of ``PLACES`` for an image.
        background: a key of ``BACKGROUNDS``.
    """

    size: str | None = None
    colour: str | None = None
    shape: str | None = None
    where: str | None = None
    background: str | None = None


def check(frames: np.ndarray, caption: str) -> dict[str, bool]:
    """Compare pixels with a caption, attribute by attribute.

    Args:
        frames: (T, H, W, 3) uint8; one frame for an image.
        caption: a caption of the demo world.

    Returns:
        For each of ``background``, ``colour``, ``shape``, ``size`` and ``direction`` (clips) or ``place`` (images),
        whether the pixels show what the caption says.

    Raises:
        ValueError: if the caption or the shape of ``frames`` is not of this world.
    """
    said: Scene = parse_caption(caption)
    seen = read(frames, said.kind)
    where = "direction" if said.kind == "video" else "place"
    return {
        "background": seen.background == said.background,
        "colour": seen.colour == said.colour,
        "shape": seen.shape == said.shape,
        "size": seen.size == said.size,
        where: seen.where == said.where,
    }


def read(frames: np.ndarray, kind: Kind) -> Reading:
    """Read the attributes of a clip or an image.

    Args:
        frames: (T, H, W, 3) uint8, H = W.
        kind: whether to read a motion or a place.

    Raises:
        ValueError: if ``frames`` is of another shape or type.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.shape[1] != frames.shape[2]:
        raise ValueError(f"frames must be (T, N, N, 3) uint8, not {frames.shape} {frames.dtype}")
    pixels = frames.astype(np.float32) / 255
    ground = np.median(_border(pixels), axis=0)
    background = _nearest(ground, BACKGROUNDS)
    covered, ink = _segment(pixels, ground)
    if (covered.sum((1, 2)) < MIN_COVERED_PX).any():
        return Reading(background=background)
    center_y, center_x = _centers(covered)
    shape, size = _match(covered, center_y, center_x)
    where = _motion(center_y, center_x) if kind == "video" else _place(center_y, center_x)
    return Reading(size, _nearest(ink, COLOURS), shape, where, background)


def _border(pixels: np.ndarray) -> np.ndarray:
    """Return the outermost two pixels on each side, (n, 3)."""
    inner = np.zeros(pixels.shape[1:3], bool)
    inner[2:-2, 2:-2] = True
    return pixels[:, ~inner].reshape(-1, 3)


def _nearest(colour: np.ndarray, palette: dict[str, Rgb]) -> str | None:
    """Name of the palette's nearest colour, or None if none is near."""
    distances = {name: float(np.linalg.norm(colour - np.asarray(rgb))) for name, rgb in palette.items()}
    name = min(distances, key=distances.__getitem__)
    return name if distances[name] < COLOUR_TOLERANCE else None


def _segment(pixels: np.ndarray, ground: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels nearer to the shape's colour than to the ground's, (T, H, W) bool, and that colour, (3,).

    Half-way is where an edge lies however soft it is: video codecs blur colour over two pixels, brightness less.
    """
    contrast = np.linalg.norm(pixels - ground, axis=-1)
    strong = float(np.quantile(contrast, 0.99))
    if strong < MIN_CONTRAST:
        return np.zeros(contrast.shape, bool), ground
    ink = np.median(pixels[contrast > 0.75 * strong], axis=0)
    direction = ink - ground
    return (pixels - ground) @ direction / (direction @ direction) > 0.5, ink


def _centers(covered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the centroid of each frame, (T,) rows and (T,) columns in pixels."""
    axis = np.arange(covered.shape[1])
    mass = covered.sum((1, 2))
    return covered.sum(2) @ axis / mass, covered.sum(1) @ axis / mass


def _match(covered: np.ndarray, center_y: np.ndarray, center_x: np.ndarray) -> tuple[str | None, str | None]:
    """Find the shape and size whose outline overlaps most (intersection over union, mean over frames)."""
    overlaps = {
        (shape, size): _overlap(covered, shape, radius, center_y, center_x)
        for shape in SHAPES
        for size, radius in RADII_PX.items()
    }
    best = max(overlaps, key=overlaps.__getitem__)
    return best if overlaps[best] > MIN_OVERLAP else (None, None)


def _overlap(covered: np.ndarray, shape: str, radius: float, center_y: np.ndarray, center_x: np.ndarray) -> float:
    # A triangle's centroid lies below the point that it is drawn around.
    shift = 0.133 * radius if shape == "triangle" else 0.0
    drawn = coverage(shape, radius, center_y - shift, center_x, covered.shape[1]) > 0.5
    return float(((covered & drawn).sum((1, 2)) / (covered | drawn).sum((1, 2))).mean())


def _motion(center_y: np.ndarray, center_x: np.ndarray) -> str | None:
    """Name the motion of the centroid; None where it lies between two of them, or there is but one frame."""
    if len(center_y) < 2:
        return None
    time = np.arange(len(center_y))
    down, right = (float(np.polyfit(time, c, 1)[0]) for c in (center_y, center_x))
    if max(abs(down), abs(right)) < STILL_PX_PER_FRAME:
        return "nowhere"
    if min(abs(down), abs(right)) > 0.5 * max(abs(down), abs(right)):
        return None
    heading = (int(np.sign(down)), 0) if abs(down) > abs(right) else (0, int(np.sign(right)))
    return next(name for name, step in MOTIONS.items() if step == heading)


def _place(center_y: np.ndarray, center_x: np.ndarray) -> str | None:
    """Name the place nearest to the centroid, or None if none is near."""
    y, x = float(center_y.mean()), float(center_x.mean())
    distances = {name: float(np.hypot(y - at_y, x - at_x)) for name, (at_y, at_x) in PLACES.items()}
    name = min(distances, key=distances.__getitem__)
    return name if distances[name] < PLACE_TOLERANCE_PX else None
