"""Measure a demo model: how much of a held-out caption its pictures show, and what its VAE loses.

python -m genrun.adapters.training.evaluate MODEL_DIR --pairs 96 --json
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from genrun.adapters.demo.checker import check
from genrun.adapters.demo.world import Scene, draw, sample, scenes
from genrun.adapters.training.objectives import psnr_db, to_tensor
from genrun.adapters.training.recipe import RECIPES, Recipe, Sampling

FIRST_SEED = 1000


@dataclass(frozen=True)
class DemoMetrics:
    """The measurements of a demo model.

    Attributes:
        pairs: (caption, seed) pairs generated; no caption was in the training set.
        accuracy: share of pairs whose pixels show the caption, for each attribute, and ``all`` of them at once.
        vae_psnr_db: reconstruction of held-out drawn scenes.
        elapsed_s: generation alone.
    """

    pairs: int
    accuracy: dict[str, float]
    vae_psnr_db: float
    elapsed_s: float


def load(folder: Path, device: str = "cpu") -> Any:
    """Load a demo pipeline from its folder, in fp32, without progress bars."""
    pipe = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def generate(pipe: Any, captions: list[str], seeds: list[int], sampling: Sampling) -> np.ndarray:
    """Generate one clip or image for each pair, all in one batch, with the pipeline's own sequential loop.

    Returns:
        (B, T, H, W, 3) uint8; T = 1 for images.
    """
    arguments = {
        "prompt": captions,
        "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
        "num_inference_steps": sampling.num_inference_steps,
        "guidance_scale": sampling.guidance_scale,
        "height": sampling.height,
        "width": sampling.width,
        "max_sequence_length": sampling.max_sequence_length,
        "output_type": "np",
    }
    if sampling.num_frames > 1:
        frames = np.asarray(pipe(**arguments, num_frames=sampling.num_frames).frames)
    else:
        frames = np.asarray(pipe(**arguments).images)[:, None]
    return (frames * 255).round().astype(np.uint8)


def held_out_pairs(recipe: Recipe, pairs: int) -> tuple[list[Scene], list[int]]:
    """Pick scenes never trained on, each as often as any other, and a seed for each."""
    world = scenes(recipe.kind, "held-out")
    order = np.random.default_rng(recipe.seed).permutation(len(world))
    return [world[order[i % len(world)]] for i in range(pairs)], [FIRST_SEED + i for i in range(pairs)]


def held_out_psnr_db(vae: Any, recipe: Recipe, count: int = 24) -> float:
    """Measure the PSNR of the VAE on whole held-out clips or images, mean over them, in dB."""
    rng = np.random.default_rng(recipe.seed + 1)
    world = scenes(recipe.kind, "held-out")
    drawn = (to_tensor(draw(sample(world, rng), rng))[None] for _ in range(count))
    return float(np.mean([psnr_db(vae, clip.to(vae.device)) for clip in drawn]))


def evaluate(pipe: Any, recipe: Recipe, pairs: int = 96, batch: int = 32) -> DemoMetrics:
    """Generate held-out pairs and compare them with their captions."""
    said, seeds = held_out_pairs(recipe, pairs)
    captions = [scene.caption for scene in said]
    started = time.perf_counter()
    frames = np.concatenate(
        [generate(pipe, captions[i : i + batch], seeds[i : i + batch], recipe.sampling) for i in range(0, pairs, batch)]
    )
    elapsed_s = time.perf_counter() - started
    verdicts = [check(clip, caption) for clip, caption in zip(frames, captions, strict=True)]
    accuracy = {name: float(np.mean([verdict[name] for verdict in verdicts])) for name in verdicts[0]}
    accuracy["all"] = float(np.mean([all(verdict.values()) for verdict in verdicts]))
    return DemoMetrics(pairs, accuracy, held_out_psnr_db(pipe.vae, recipe), elapsed_s)


def recipe_of(pipe: Any) -> Recipe:
    """Find the recipe that a pipeline was built from, by its class.

    Raises:
        ValueError: if no demo model is of that class.
    """
    names = {"CogVideoXPipeline": "demo-video", "StableDiffusion3Pipeline": "demo-image"}
    name = names.get(type(pipe).__name__)
    if name is None:
        raise ValueError(f"{type(pipe).__name__} is no demo model; give a folder of {' or '.join(sorted(RECIPES))}")
    return RECIPES[name]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help=f"pipeline folder, or {' or '.join(sorted(RECIPES))}")
    parser.add_argument("--pairs", type=int, default=96, help="held-out (caption, seed) pairs (default: 96)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    folder = RECIPES[chosen.model].weights if chosen.model in RECIPES else Path(chosen.model)
    if not (folder / "model_index.json").is_file():
        parser.error(
            f"{chosen.model} holds no model_index.json; give a pipeline folder or {' or '.join(sorted(RECIPES))}"
        )
    pipe = load(folder, chosen.device)
    measured = evaluate(pipe, recipe_of(pipe), chosen.pairs)
    if chosen.json:
        print(json.dumps(asdict(measured), indent=2))
        return
    for name, share in measured.accuracy.items():
        print(f"{name:12} {100 * share:5.1f} % of {measured.pairs}")
    print(f"{'VAE':12} {measured.vae_psnr_db:5.2f} dB")


if __name__ == "__main__":
    main()
