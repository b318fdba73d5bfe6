"""Recipes of the demo models: how they are built, trained and called, as plain values. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from genrun.adapters.demo.world import CLIP_FRAMES, FRAME_PX, Kind


@dataclass(frozen=True)
class Sampling:
    """Arguments a demo pipeline is meant to be called with.

    ``num_frames`` and ``fps`` mean nothing to an image pipeline; ``max_sequence_length`` is in tokens.
    """

    num_inference_steps: int = 50
    guidance_scale: float = 5.0
    height: int = FRAME_PX
    width: int = FRAME_PX
    num_frames: int = CLIP_FRAMES
    fps: int = 8
    max_sequence_length: int = 12


@dataclass(frozen=True)
class VaeStage:
    """A stretch of the VAE's training.

    Attributes:
        name: names the checkpoint.
        steps: optimizer steps.
        batch: clips or images a step.
        frames: frames a clip; 1 trains on single frames.
        crop_px: side of the random window, near the shape, that a step sees.
        lr: peak learning rate; it decays linearly to ``end`` times that.
        end: see ``lr``.
        ema: averaging of the weights; none by default.
        decoder_only: first give every latent channel mean 0 and deviation 1, then leave the encoder as it is.
    """

    name: str
    steps: int
    batch: int
    frames: int
    crop_px: int
    lr: float
    end: float = 0.1
    ema: float = 0.0
    decoder_only: bool = False


@dataclass(frozen=True)
class TransformerStage:
    """The transformer's training: AdamW, linear decay, an average of the weights, dropped captions.

    Attributes:
        steps: optimizer steps.
        batch: latents a step.
        lr: peak learning rate; it decays linearly to 1 % of that.
        caption_drop: share of captions replaced by the empty one, for classifier-free guidance.
        ema: time constant of the averaged weights, as a share of the steps done so far.
        latents: clips or images encoded once as the training set.
    """

    steps: int
    batch: int
    lr: float
    caption_drop: float
    ema: float
    latents: int
    end: float = 0.01
    name: str = "transformer"


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a demo model's weights, and how to call the model."""

    name: str
    kind: Kind
    vae: tuple[VaeStage, ...]
    transformer: TransformerStage
    sampling: Sampling
    seed: int = 0

    @property
    def weights(self) -> Path:
        """Folder of the shipped pipeline."""
        return Path(__file__).parents[1] / "demo" / "weights" / self.name


DEMO_VIDEO = Recipe(
    name="demo-video",
    kind="video",
    vae=(
        VaeStage("vae-frames", steps=500, batch=16, frames=1, crop_px=32, lr=1e-3, end=0.5),
        VaeStage("vae-clips", steps=900, batch=3, frames=9, crop_px=32, lr=4e-4, end=0.3),
        VaeStage("vae-whole-clips", steps=1320, batch=1, frames=9, crop_px=64, lr=4e-4, end=0.03, decoder_only=True),
    ),
    transformer=TransformerStage(steps=37000, batch=24, lr=2e-3, caption_drop=0.1, ema=0.05, latents=6144),
    sampling=Sampling(),
)
DEMO_IMAGE = Recipe(
    name="demo-image",
    kind="image",
    vae=(
        VaeStage("vae-crops", steps=1400, batch=24, frames=1, crop_px=32, lr=1e-3, end=0.5),
        VaeStage("vae-whole", steps=300, batch=6, frames=1, crop_px=64, lr=5e-4, end=0.03),
    ),
    transformer=TransformerStage(steps=8000, batch=32, lr=1.5e-3, caption_drop=0.1, ema=0.05, latents=8192),
    sampling=Sampling(num_frames=1),
)
RECIPES = {recipe.name: recipe for recipe in (DEMO_VIDEO, DEMO_IMAGE)}
