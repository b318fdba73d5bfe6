"""A small CLIP of the demo world, of stock transformers classes: what `clip_score` measures the demo models with.

It sees single frames, as any CLIP does: which way a shape moves is not in them, so captions that differ in their
motion alone are the same to it, and its training treats them as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer
from transformers.models.clip.configuration_clip import CLIPTextConfig, CLIPVisionConfig

from genrun.adapters.demo.world import FRAME_PX, Scene
from genrun.adapters.training.components import CLIP_SPECIAL, MAX_TOKENS, clip_tokenizer

WIDTH = 96
HEADS = 4


@dataclass(frozen=True)
class ClipRecipe:
    """The training of the demo world's CLIP: AdamW, linear decay, an average of the weights.

    Attributes:
        steps: optimizer steps.
        batch: pairs of frame and caption a step, all of one kind (moving, or at a place), in turn.
        lr: peak learning rate; it decays linearly to ``end`` times that.
        end: see ``lr``.
        ema: time constant of the averaged weights, as a share of the steps done so far.
        noise: largest deviation of the pixel noise that frames are given, in 0..1.
        seed: decides every random number.
        name: names the folder and the checkpoint.
    """

    steps: int = 2400
    batch: int = 48
    lr: float = 1e-3
    end: float = 0.02
    ema: float = 0.05
    noise: float = 0.06
    seed: int = 0
    name: str = "demo-clip"

    @property
    def weights(self) -> Path:
        """Folder of the shipped model."""
        return Path(__file__).parents[1] / "demo" / "weights" / self.name


DEMO_CLIP = ClipRecipe()


@dataclass(frozen=True)
class Clip:
    """A CLIP checkpoint's three parts, saved to one folder in transformers' layout."""

    model: CLIPModel
    tokenizer: CLIPTokenizer
    processor: CLIPImageProcessorPil

    def save(self, folder: Path) -> None:
        """Write a folder that `CLIPModel.from_pretrained` and its processors read."""
        for part in (self.model, self.tokenizer, self.processor):
            part.save_pretrained(folder)


def build_clip(recipe: ClipRecipe = DEMO_CLIP) -> Clip:
    """Build the model with untrained weights, the same for the same seed: 16 patches of 16 pixels, at most 12 tokens."""
    tokenizer = clip_tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=CLIP_SPECIAL.index(str(tokenizer.bos_token)),
        eos_token_id=CLIP_SPECIAL.index(str(tokenizer.eos_token)),
        pad_token_id=CLIP_SPECIAL.index(str(tokenizer.pad_token)),
    )
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=HEADS,
        image_size=FRAME_PX,
        patch_size=16,
    )
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=WIDTH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = CLIPModel(config)
    size = {"height": FRAME_PX, "width": FRAME_PX}
    processor = CLIPImageProcessorPil(size={"shortest_edge": FRAME_PX}, crop_size=size)
    return Clip(model, tokenizer, processor)


def visible(scene: Scene) -> tuple[str, ...]:
    """Return the attributes of a scene that a single frame shows: everything but its motion."""
    where = "" if scene.kind == "video" else scene.where
    return (scene.size, scene.colour, scene.shape, where, scene.background)
