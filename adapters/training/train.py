"""Train a demo model from nothing and save it as an ordinary diffusers pipeline folder.

python -m genrun.adapters.training.train demo-video --out DIR [--device cuda] [--resume]
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from genrun.adapters.demo.world import Scene, draw, sample, scenes
from genrun.adapters.training.components import build_pipeline
from genrun.adapters.training.evaluate import held_out_psnr_db
from genrun.adapters.training.loop import StepRandom, TrainingLoop
from genrun.adapters.training.objectives import (
    encode_mean,
    flow_loss,
    pictures,
    reconstruction_loss,
    standardise,
    to_tensor,
    velocity_loss,
)
from genrun.adapters.training.recipe import RECIPES, Recipe


def train(recipe: Recipe, out: Path, work: Path, device: str = "cpu", resume: bool = False) -> None:
    """Train a recipe's VAE and transformer, and save the pipeline.

    Args:
        recipe: what to train.
        out: folder of the finished pipeline.
        work: folder of checkpoints.
        device: where to train.
        resume: continue from the checkpoints in ``work``.
    """
    pipe = build_pipeline(recipe)
    pipe.to(device)
    loop = TrainingLoop(work, recipe.seed, resume, log=lambda line: print(line, flush=True))
    train_vae(pipe.vae, recipe, loop)
    train_transformer(pipe, recipe, loop)
    save(pipe, out)


def train_vae(vae: Any, recipe: Recipe, loop: TrainingLoop) -> None:
    """Run the VAE's stages, in order."""
    world = scenes(recipe.kind, "train")
    for stage in recipe.vae:

        def loss(random: StepRandom, stage: Any = stage) -> Tensor:
            batch = pictures(world, stage, random.numpy).to(vae.device)
            return reconstruction_loss(vae, batch, random)

        vae.encoder.requires_grad_(not stage.decoder_only)
        if stage.decoder_only:
            standardise(vae, whole_latents(vae, recipe))
        loop.fit(vae, stage, loss)
        loop.log(f"{stage.name}: {held_out_psnr_db(vae, recipe):.2f} dB on held-out scenes")


def whole_latents(vae: Any, recipe: Recipe, count: int = 64) -> Tensor:
    """Return the latent means of whole drawn clips or images of the training half."""
    rng = np.random.default_rng([recipe.seed, count])
    world = scenes(recipe.kind, "train")
    drawn = (to_tensor(draw(sample(world, rng), rng))[None] for _ in range(count))
    with torch.no_grad():
        return torch.cat([encode_mean(vae, clip.to(vae.device)) for clip in drawn])


def train_transformer(pipe: Any, recipe: Recipe, loop: TrainingLoop) -> None:
    """Encode the training set once, fix the VAE's latent scale, and train the transformer on it."""
    data = latent_set(pipe, recipe, loop)
    plan, transformer, scheduler = recipe.transformer, pipe.transformer, pipe.scheduler
    world = scenes(recipe.kind, "train")
    text = {name: part.to(pipe.device) for name, part in encode_text(pipe, recipe, world).items()}

    def loss(random: StepRandom) -> Tensor:
        picked = random.numpy.integers(len(data["latents"]), size=plan.batch)
        captions = np.where(random.numpy.random(plan.batch) < plan.caption_drop, len(world), data["scene"][picked])
        batch = data["latents"][picked].to(pipe.device)
        said = {name: part[captions] for name, part in text.items()}
        if recipe.kind == "video":
            alphas = scheduler.alphas_cumprod.float().to(pipe.device)
            return velocity_loss(transformer, batch, said, alphas, random)
        return flow_loss(transformer, batch, said, scheduler.config.shift, random)

    loop.fit(transformer, plan, loss)


def latent_set(pipe: Any, recipe: Recipe, loop: TrainingLoop) -> dict[str, Tensor]:
    """Make the training latents in the transformer's layout and scale, and the index of each one's scene.

    Kept in ``loop.folder``, and read from there by a resumed run. Sets the VAE's ``scaling_factor``.
    """
    path = loop.folder / "latents.safetensors"
    if not (loop.resume and path.exists()):
        rng = np.random.default_rng([recipe.seed, recipe.transformer.latents])
        world = scenes(recipe.kind, "train")
        index = rng.integers(len(world), size=recipe.transformer.latents)
        with torch.no_grad():
            chunks = [
                encode_mean(pipe.vae, to_tensor(np.stack([draw(world[i], rng) for i in part])).to(pipe.device))
                for part in np.array_split(index, max(1, len(index) // 8))
            ]
        save_file({"mean": torch.cat(chunks).cpu().contiguous(), "scene": torch.from_numpy(index)}, path)
        loop.log(f"{len(index)} latents encoded")
    stored = load_file(path)
    scale = 1 / float(stored["mean"].std())
    pipe.vae.register_to_config(scaling_factor=scale)
    latents = stored["mean"] * scale
    return {"latents": latents.movedim(1, 2) if recipe.kind == "video" else latents, "scene": stored["scene"]}


def encode_text(pipe: Any, recipe: Recipe, world: list[Scene]) -> dict[str, Tensor]:
    """Return the transformer's text arguments for each scene's caption, and last for the empty caption."""
    captions = [*(scene.caption for scene in world), ""]
    with torch.no_grad():
        prompts = [captions] if recipe.kind == "video" else [captions, None, None]
        tokens = recipe.sampling.max_sequence_length
        encoded = pipe.encode_prompt(*prompts, do_classifier_free_guidance=False, max_sequence_length=tokens)
        if recipe.kind == "video":
            return {"encoder_hidden_states": encoded[0]}
        return {"encoder_hidden_states": encoded[0], "pooled_projections": encoded[2]}


def save(pipe: Any, out: Path) -> None:
    """Save the pipeline with the VAE's and the transformer's weights in half precision; leaves them so."""
    pipe.vae.half()
    pipe.transformer.half()
    pipe.save_pretrained(out, safe_serialization=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", choices=sorted(RECIPES))
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished pipeline")
    parser.add_argument("--work", type=Path, help="folder of checkpoints (default: OUT.training)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--steps", type=int, help="steps of the transformer instead of the recipe's")
    parser.add_argument("--seed", type=int, default=0, help="decides every random number (default: 0)")
    parser.add_argument("--resume", action="store_true", help="continue from the checkpoints")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    recipe = dataclasses.replace(RECIPES[chosen.model], seed=chosen.seed)
    if chosen.steps is not None:
        transformer = dataclasses.replace(recipe.transformer, steps=chosen.steps)
        recipe = dataclasses.replace(recipe, transformer=transformer)
    work = chosen.work or chosen.out.with_name(f"{chosen.out.name}.training")
    train(recipe, chosen.out, work, chosen.device, chosen.resume)


if __name__ == "__main__":
    main()
