"""Train the demo world's CLIP from nothing and save it as an ordinary transformers folder.

python -m genrun.adapters.training.train_clip --out DIR [--device cuda] [--resume]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, log_softmax

from genrun.adapters.demo.world import CLIP_FRAMES, Scene, paint, path, sample, scenes
from genrun.adapters.training.clip import DEMO_CLIP, Clip, ClipRecipe, build_clip, visible
from genrun.adapters.training.loop import StepRandom, TrainingLoop


def train(recipe: ClipRecipe, out: Path, work: Path, device: str = "cpu", resume: bool = False) -> None:
    """Train a CLIP on single frames of the world's training half, and save it.

    Args:
        recipe: what to train.
        out: folder of the finished model.
        work: folder of the checkpoint.
        device: where to train.
        resume: continue from the checkpoint in ``work``.
    """
    clip = build_clip(recipe)
    nn.Module.to(clip.model, device)
    worlds = (scenes("video", "train"), scenes("image", "train"))

    def loss(random: StepRandom) -> Tensor:
        world = worlds[int(random.numpy.integers(2))]
        said = [sample(world, random.numpy) for _ in range(recipe.batch)]
        pixels = torch.from_numpy(frames_of(said, random.numpy, recipe.noise))
        return contrastive_loss(clip, pixels, said)

    TrainingLoop(work, recipe.seed, resume, log=lambda line: print(line, flush=True)).fit(clip.model, recipe, loss)
    clip.save(out)


def frames_of(said: Sequence[Scene], rng: np.random.Generator, noise: float) -> np.ndarray:
    """Draw one frame of each scene, somewhat blurred and noisy as decoded frames are: (B, 3, 64, 64) float32 in 0..1."""
    frames = np.concatenate([one_frame(scene, rng) for scene in said]).transpose(0, 3, 1, 2)
    soft = torch.from_numpy(frames)
    soft = interpolate(avg_pool2d(soft, 2), scale_factor=2, mode="bilinear", align_corners=False).numpy()
    blur = rng.uniform(0, 1, (len(said), 1, 1, 1))
    deviation = rng.uniform(0, noise, (len(said), 1, 1, 1))
    mixed = (1 - blur) * frames + blur * soft + deviation * rng.normal(size=frames.shape)
    return np.clip(mixed, 0, 1).astype(np.float32)


def one_frame(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Draw any frame of a scene's clip, or its image: (1, 64, 64, 3) float32 in 0..1."""
    course_y, course_x = path(scene, rng, CLIP_FRAMES if scene.kind == "video" else 1)
    at = int(rng.integers(len(course_y)))
    return paint(scene, course_y[at : at + 1], course_x[at : at + 1])


def contrastive_loss(clip: Clip, pixels: Tensor, said: Sequence[Scene]) -> Tensor:
    """Compute the symmetric cross-entropy (Radford et al., 2021, figure 3), where indistinguishable captions share a frame.

    Args:
        clip: the model.
        pixels: (B, 3, 64, 64) in 0..1.
        said: the scenes of the frames.
    """
    model, device = clip.model, clip.model.device
    mean, std = (torch.tensor(x)[:, None, None] for x in (clip.processor.image_mean, clip.processor.image_std))
    tokens = clip.tokenizer([scene.caption for scene in said], padding=True, return_tensors="pt").to(device)
    logits = model(**tokens, pixel_values=((pixels - mean) / std).to(device)).logits_per_image
    keys = [visible(scene) for scene in said]
    same = torch.tensor([[float(a == b) for b in keys] for a in keys], device=device)
    target = same / same.sum(1, keepdim=True)
    return -(target * (log_softmax(logits, 1) + log_softmax(logits.T, 1))).sum(1).mean() / 2


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DEMO_CLIP.weights)
    parser.add_argument("--work", type=Path, default=Path("runs/train/demo-clip"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resume", action="store_true")
    chosen = parser.parse_args()
    train(DEMO_CLIP, chosen.out, chosen.work, chosen.device, chosen.resume)


if __name__ == "__main__":
    main()
