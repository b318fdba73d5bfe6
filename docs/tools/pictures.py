"""Draw the pictures that the packaged jobs start from: `python docs/tools/pictures.py`, into jobs/prompts/pictures/."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from genrun.adapters.media import write_video

FOLDER = Path(__file__).parents[2] / "jobs" / "prompts" / "pictures"
SKY, SEA, SAND, SUN, SAIL, HULL = "#9ec9e8", "#2f6f9f", "#e3cf9a", "#f4b942", "#f7f3ea", "#7a3b2e"
CLIP_FRAMES, CLIP_FPS = 17, 16


def boat(width: int, height: int, place: float) -> Image.Image:
    """A boat before the sun; `place` is how far it has sailed, 0 to 1."""
    image = Image.new("RGB", (width, height), SKY)
    draw = ImageDraw.Draw(image)
    draw.ellipse((0.72 * width, 0.1 * height, 0.72 * width + 0.2 * height, 0.3 * height), fill=SUN)
    draw.rectangle((0, 0.55 * height, width, height), fill=SEA)
    draw.rectangle((0, 0.86 * height, width, height), fill=SAND)
    left, side = (0.1 + 0.5 * place) * width, 0.25 * height
    draw.polygon(((left, 0.55 * height), (left + side, 0.55 * height), (left + side / 2, 0.25 * height)), fill=SAIL)
    draw.rectangle((left - side / 5, 0.55 * height, left + 1.2 * side, 0.63 * height), fill=HULL)
    return image


def mask(side: int) -> Image.Image:
    """White where the sun is to be painted anew."""
    image = Image.new("L", (side, side), 0)
    ImageDraw.Draw(image).ellipse((0.7 * side, 0.08 * side, 0.94 * side, 0.32 * side), fill=255)
    return image


def edges(image: Image.Image) -> Image.Image:
    """White lines between the colours of a picture, as a ControlNet of edges wants them."""
    pixels = np.asarray(image, int)
    steps = [np.abs(np.diff(pixels, axis=axis, append=pixels.take([-1], axis))).max(-1) for axis in (0, 1)]
    lines = np.where(np.maximum(*steps) > 0, 255, 0).astype(np.uint8)
    return Image.fromarray(lines).convert("RGB")


def main() -> None:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    wide, square = (832, 480), (1024, 1024)
    pictures = {
        "boat.png": boat(*wide, 0.0),
        "boat-later.png": boat(*wide, 1.0),
        "boat-square.png": boat(*square, 0.5),
        "boat-sun.png": mask(square[0]),
        "boat-edges.png": edges(boat(*square, 0.5)),
    }
    for name, image in pictures.items():
        image.quantize(8).save(FOLDER / name, optimize=True)
    frames = np.stack([np.asarray(boat(*wide, place)) for place in np.linspace(0, 1, CLIP_FRAMES)])
    write_video(FOLDER / "boat.mp4", frames, CLIP_FPS, crf=30)


if __name__ == "__main__":
    main()
