"""Evaluation of the demo world's CLIP: can it tell captions apart, on held-out scenes in media files?

python -m genrun.adapters.training.evaluate_clip [FOLDER] [--pairs 400]
"""

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from genrun.adapters.demo.world import (
    BACKGROUNDS,
    COLOURS,
    PLACES,
    RADII_PX,
    SHAPES,
    Kind,
    Scene,
    draw,
    sample,
    scenes,
)
from genrun.adapters.media import write_image, write_video
from genrun.adapters.scorers.clip_score import ClipOptions, ClipScore
from genrun.adapters.scorers.contract import Sample
from genrun.adapters.training.clip import DEMO_CLIP, visible

ATTRIBUTES = {
    "size": RADII_PX,
    "colour": COLOURS,
    "shape": SHAPES,
    "background": BACKGROUNDS,
    "where": PLACES,
}


def accuracy(folder: Path, pairs: int, seed: int = 0) -> Mapping[str, float]:
    """Share of pairs in which a clip or image scores higher with its own caption than with another.

    Args:
        folder: of the CLIP.
        pairs: how many pairs for each number, half of them clips.
        seed: decides scenes, jitter and captions.

    Returns:
        "any": against the caption of any other held-out scene that looks different; and for each attribute that a
        frame shows, against the caption in which that attribute alone is another ("where" for images only).
    """
    metric = ClipScore(ClipOptions(checkpoint=str(folder)))
    rng = np.random.default_rng([seed, pairs])
    right: dict[str, list[bool]] = {}
    with tempfile.TemporaryDirectory() as folder_of_media:
        for index in range(pairs):
            kind: Kind = "video" if index % 2 else "image"
            world = scenes(kind, "held-out")
            scene = sample(world, rng)
            media = _written(scene, rng, Path(folder_of_media))
            own = _score(metric, media, scene)
            others = {"any": sample([other for other in world if visible(other) != visible(scene)], rng)}
            others |= {name: changed for name in ATTRIBUTES if (changed := _changed(scene, name, rng))}
            for name, other in others.items():
                right.setdefault(name, []).append(own > _score(metric, media, other))
    return {name: float(np.mean(found)) for name, found in right.items()}


def _changed(scene: Scene, attribute: str, rng: np.random.Generator) -> Scene | None:
    """Change one attribute of a scene; None for the motion of a clip, which no frame shows."""
    if attribute == "where" and scene.kind == "video":
        return None
    others = [value for value in ATTRIBUTES[attribute] if value != getattr(scene, attribute)]
    return replace(scene, **{attribute: others[int(rng.integers(len(others)))]})


def _written(scene: Scene, rng: np.random.Generator, folder: Path) -> Path:
    frames = (255 * draw(scene, rng)).round().astype(np.uint8)
    path = folder / ("clip.mp4" if scene.kind == "video" else "image.png")
    if scene.kind == "video":
        write_video(path, frames, fps=8)
    else:
        write_image(path, frames[0])
    return path


def _score(metric: ClipScore, media: Path, said: Scene) -> float:
    return metric.measure(Sample(said.caption, media=media), None)[f"{metric.name}.cosine"]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=DEMO_CLIP.weights)
    parser.add_argument("--pairs", type=int, default=400)
    chosen = parser.parse_args()
    for name, share in accuracy(chosen.folder, chosen.pairs).items():
        print(f"{name:10} {100 * share:5.1f} %")


if __name__ == "__main__":
    main()
