"""The zoo's pipelines: stock classes of diffusers and transformers with small configurations, and how each is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from genrun.adapters.training.components import (
    CLIP_SPECIAL,
    MAX_TOKENS,
    TEXT_WIDTH,
    clip_encoder,
    clip_tokenizer,
    t5_encoder,
    t5_tokenizer,
)
from genrun.adapters.training.recipe import DEMO_IMAGE

from . import data
from .data import Pictures

# Untyped on purpose: diffusers exports nothing to type checkers and annotates `tuple[int]` for any length.
df: Any = import_module("diffusers")

Text = dict[str, Tensor]
"""The denoiser's text arguments, one row for each caption and last the empty one's."""


@dataclass(frozen=True)
class Model:
    """A model of the zoo.

    Attributes:
        title: one line.
        tuned: constants may be chosen by what is seen on it; otherwise it is only reported on.
        build: the pipeline, untrained.
        pictures: what it is trained on.
        encode: a pipeline's text arguments for one caption.
        vae_steps: optimizer steps of its VAE; 0 where it has none, or a trained one.
        steps: optimizer steps of its denoiser.
        batch: pictures a step.
        lr: peak learning rate.
        scale: standard deviation of the latents that it is trained on.
        sampling: a job's `sampling` that it is meant to be called with.
        guided: takes a guidance scale.
    """

    title: str
    tuned: bool
    build: Callable[[], Any]
    pictures: Callable[[], Pictures]
    encode: Callable[[Any, str], Text]
    vae_steps: int
    steps: int
    batch: int = 32
    lr: float = 1.5e-3
    scale: float = 1.0
    sampling: dict[str, Any] = field(default_factory=dict)
    guided: bool = True


def picture_vae() -> Any:
    """An AutoencoderKL of 16x16 pixels: 8x8 latents of 4 channels."""
    return df.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=data.SIDE_PX,
        shift_factor=0.0,
    )


def demo_vae() -> Any:
    """demo-image's trained VAE: 64x64 pixels to 8x8 latents of 16 channels."""
    return df.AutoencoderKL.from_pretrained(DEMO_IMAGE.weights / "vae", torch_dtype=torch.float32)


def diffusion_grid(prediction: str) -> Any:
    """The scheduler of the diffusion models: DDIM on Stable Diffusion's noise levels."""
    spacing = {"timestep_spacing": "trailing", "clip_sample": False, "steps_offset": 1}
    return df.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction, **spacing
    )


def dit_flow() -> Any:
    """Stable Diffusion 3's pipeline on photographs."""
    transformer = df.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        attention_head_dim=32,
        num_attention_heads=4,
        caption_projection_dim=128,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        pos_embed_max_size=4,
        qk_norm="rms_norm",
    )
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    one, two = clip_encoder(clip), clip_encoder(clip)
    scheduler = df.FlowMatchEulerDiscreteScheduler(shift=2.0)
    return df.StableDiffusion3Pipeline(transformer, scheduler, picture_vae(), one, clip, two, clip, t5_encoder(t5), t5)


def dit_v() -> Any:
    """PixArt's pipeline on digits, v-prediction."""
    transformer = df.PixArtTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=32,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        cross_attention_dim=128,
        caption_channels=TEXT_WIDTH,
        sample_size=8,
        patch_size=2,
        use_additional_conditions=False,
    )
    t5 = t5_tokenizer()
    return df.PixArtAlphaPipeline(t5, t5_encoder(t5), picture_vae(), transformer, diffusion_grid("v_prediction"))


def unet_eps() -> Any:
    """Stable Diffusion's pipeline on the demo world, epsilon-prediction, a U-Net at two resolutions."""
    return stable_diffusion(demo_vae(), 16, (48, 96), diffusion_grid("epsilon"))


def unet_edm() -> Any:
    """Stable Diffusion's pipeline on faces, with EDM's preconditioning and noise levels."""
    return stable_diffusion(picture_vae(), 4, (48, 96), df.EDMEulerScheduler(sigma_data=0.5))


def stable_diffusion(vae: Any, channels: int, widths: tuple[int, int], scheduler: Any) -> Any:
    """Stable Diffusion's pipeline with a small U-Net."""
    unet = df.UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=widths,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    tokenizer = clip_tokenizer()
    return df.StableDiffusionPipeline(
        vae, hidden_clip(tokenizer), tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )


def hidden_clip(tokenizer: Any) -> CLIPTextModel:
    """A frozen random CLIP that returns each token's state, as Stable Diffusion reads it."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=CLIP_SPECIAL.index(str(tokenizer.bos_token)),
        eos_token_id=CLIP_SPECIAL.index(str(tokenizer.eos_token)),
        pad_token_id=CLIP_SPECIAL.index(str(tokenizer.pad_token)),
    )
    return CLIPTextModel(config).eval()


def video_dit() -> Any:
    """Latte's pipeline on the demo world's clips: 5 frames, attention in space and in time by turns."""
    transformer = df.LatteTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=32,
        in_channels=16,
        out_channels=32,  # its pipeline drops the second half, which predicts the variance
        num_layers=3,
        cross_attention_dim=128,
        attention_bias=True,
        sample_size=8,
        patch_size=2,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        caption_channels=TEXT_WIDTH,
        video_length=FRAMES,
    )
    t5 = t5_tokenizer()
    return df.LattePipeline(t5, t5_encoder(t5), demo_vae(), transformer, diffusion_grid("epsilon"))


def stack_of(denoiser: Any) -> nn.ModuleList:
    """Return a transformer's blocks as the one list that cache-dit caches.

    Latte, which it does not know, has two lists, by turns; they become one, in that order, of blocks that lay tokens out
    for themselves.
    """
    if not hasattr(denoiser, "temporal_transformer_blocks"):
        return denoiser.transformer_blocks
    frames = denoiser.temp_pos_embed.shape[1]
    pairs = list(zip(denoiser.transformer_blocks, denoiser.temporal_transformer_blocks, strict=True))
    first = denoiser.temp_pos_embed.clone()
    blocks = nn.ModuleList()
    for place, (space, time) in enumerate(pairs):
        blocks.append(InSpace(space))
        blocks.append(InTime(time, frames, torch.zeros_like(first) if place else first))
    denoiser.temp_pos_embed.zero_()
    denoiser.transformer_blocks, denoiser.temporal_transformer_blocks = blocks, nn.ModuleList([Passing()])
    return blocks


class InSpace(nn.Module):
    """A block of Latte's in space."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, hidden_states: Tensor, *given: Any) -> Tensor:
        """Call the block as the model does."""
        return self.block(hidden_states, *given)


class InTime(nn.Module):
    """A block of Latte's in time, which is given tokens in the layout of space."""

    def __init__(self, block: nn.Module, frames: int, position: Tensor) -> None:
        super().__init__()
        self.block, self.frames, self.position = block, frames, position

    def forward(self, hidden_states: Tensor, *given: Any) -> Tensor:
        """Turn (batch x frames, tokens, width) to (batch x tokens, frames, width), and back."""
        _, tokens, width = hidden_states.shape
        timestep = given[3][:: self.frames].repeat_interleave(tokens, dim=0)
        turned = hidden_states.view(-1, self.frames, tokens, width).transpose(1, 2)
        found = self.block(
            turned.reshape(-1, self.frames, width) + self.position, None, None, None, timestep, None, None
        )
        return found.view(-1, tokens, self.frames, width).transpose(1, 2).reshape(-1, tokens, width)


class Passing(nn.Module):
    """Does nothing."""

    def forward(self, hidden_states: Tensor, *_: Any) -> Tensor:
        """Return what it is given."""
        return hidden_states


def unconditional() -> Any:
    """DDIM's pipeline on digits: pixels, no text."""
    unet = df.UNet2DModel(
        sample_size=data.SIDE_PX,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=16,
        norm_num_groups=8,
    )
    return df.DDPMPipeline(unet, df.DDPMScheduler(clip_sample=False, timestep_spacing="trailing"))


FRAMES = 5


def sd3_text(pipe: Any, caption: str) -> Text:
    """SD3: tokens of all three encoders, and CLIP's pooled ones."""
    made = pipe.encode_prompt(caption, None, None, do_classifier_free_guidance=False, max_sequence_length=MAX_TOKENS)
    return {"encoder_hidden_states": made[0], "pooled_projections": made[2]}


def pixart_text(pipe: Any, caption: str) -> Text:
    """PixArt: tokens, and which of them are words."""
    made = pipe.encode_prompt(caption, False, "", max_sequence_length=MAX_TOKENS)
    return {"encoder_hidden_states": made[0], "encoder_attention_mask": made[1]}


def latte_text(pipe: Any, caption: str) -> Text:
    """Latte: as many tokens as the caption has; the empty one is cut to that number, as it is in a guided call."""
    shown = caption or "a small red circle moving left on gray"
    return {"encoder_hidden_states": pipe.encode_prompt(shown, negative_prompt="")[0 if caption else 1]}


def sd_text(pipe: Any, caption: str) -> Text:
    """Stable Diffusion: tokens."""
    return {"encoder_hidden_states": pipe.encode_prompt(caption, pipe.device, 1, False)[0]}


def no_text(pipe: Any, caption: str) -> Text:
    """Nothing."""
    del pipe, caption
    return {}


WORDS = {"max_sequence_length": MAX_TOKENS}
LARGE = {"height": 64, "width": 64, "guidance_scale": 5.0, "steps": 50}
SQUARE = {"height": data.SIDE_PX, "width": data.SIDE_PX, "guidance_scale": 5.0, "steps": 50}
MODELS = {
    "dit-flow": Model(
        "DiT, flow matching, photographs (SD3)",
        tuned=False,
        build=dit_flow,
        pictures=data.photographs,
        encode=sd3_text,
        vae_steps=500,
        steps=1500,
        sampling={**SQUARE, "options": WORDS},
    ),
    "dit-v": Model(
        "DiT, v-prediction, digits (PixArt)",
        tuned=True,
        build=dit_v,
        pictures=data.digits,
        encode=pixart_text,
        vae_steps=300,
        steps=1500,
        sampling={**SQUARE, "options": {**WORDS, "use_resolution_binning": False}},
    ),
    "unet-eps": Model(
        "U-Net, epsilon, demo world (Stable Diffusion)",
        tuned=False,
        build=unet_eps,
        pictures=data.shapes,
        encode=sd_text,
        vae_steps=0,
        steps=2000,
        batch=24,
        sampling=LARGE,
    ),
    "unet-edm": Model(
        "U-Net, EDM preconditioning, faces (Stable Diffusion)",
        tuned=True,
        build=unet_edm,
        pictures=data.faces,
        encode=sd_text,
        vae_steps=300,
        steps=1500,
        scale=0.5,
        sampling=SQUARE,
    ),
    "video-dit": Model(
        "video DiT, epsilon, demo world (Latte)",
        tuned=False,
        build=video_dit,
        pictures=lambda: data.shapes(FRAMES),
        encode=latte_text,
        vae_steps=0,
        steps=1400,
        batch=12,
        sampling={**LARGE, "options": {"video_length": FRAMES}},
    ),
    "unconditional": Model(
        "U-Net, epsilon, digits in pixels, no text (DDPM)",
        tuned=True,
        build=unconditional,
        pictures=data.digits,
        encode=no_text,
        vae_steps=0,
        steps=1500,
        sampling={"steps": 50},
        guided=False,
    ),
}
