"""Tiny text-to-image pipelines: SD3, Flux, Flux2, Flux2Klein, QwenImage, Z-Image, Sana, Stable Diffusion 2 and XL, DDPM."""

from importlib import import_module
from typing import Any

from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from . import text
from .schedulers import DIFFUSION
from .text import WIDTH

# Untyped on purpose: diffusers exports nothing to type checkers and annotates `tuple[int]` for any length.
df: Any = import_module("diffusers")

FOUR_LEVELS = {
    "block_out_channels": (4, 4, 4, 4),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "norm_num_groups": 2,
    "layers_per_block": 1,
    "latent_channels": 4,
}
DYNAMIC_SHIFT = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}


def sd3() -> DiffusionPipeline:
    """Two CLIPs and a T5; one call of the transformer for both halves of the guidance."""
    transformer = df.SD3Transformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=2 * WIDTH,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return df.StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=df.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=df.AutoencoderKL(**FOUR_LEVELS, shift_factor=0.06, scaling_factor=1.53, use_quant_conv=False),
        text_encoder=text.clip_encoder(projection=True),
        tokenizer=text.clip_tokenizer(),
        text_encoder_2=text.clip_encoder(projection=True),
        tokenizer_2=text.clip_tokenizer(),
        text_encoder_3=text.t5_encoder(2 * WIDTH),
        tokenizer_3=text.t5_tokenizer(),
    )


def flux() -> DiffusionPipeline:
    """Embedded guidance, and true guidance by a second call."""
    transformer = df.FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(2, 2, 4),
    )
    return df.FluxPipeline(
        transformer=transformer,
        scheduler=df.FlowMatchEulerDiscreteScheduler(shift=3.0, **DYNAMIC_SHIFT),
        vae=df.AutoencoderKL(**FOUR_LEVELS, shift_factor=0.1159, scaling_factor=0.3611, use_quant_conv=False),
        text_encoder=text.clip_encoder(),
        tokenizer=text.clip_tokenizer(),
        text_encoder_2=text.t5_encoder(),
        tokenizer_2=text.t5_tokenizer(),
    )


def flux2() -> DiffusionPipeline:
    """Embedded guidance only."""
    return df.Flux2Pipeline(
        transformer=_flux2_transformer(guidance_embeds=True),
        scheduler=df.FlowMatchEulerDiscreteScheduler(shift=3.0, **DYNAMIC_SHIFT),
        vae=df.AutoencoderKLFlux2(**FOUR_LEVELS, sample_size=64),
        text_encoder=text.mistral_encoder(),
        tokenizer=text.chat_tokenizer(text.CHAT_OF_USER_ONLY),
    )


def flux2_klein() -> DiffusionPipeline:
    """The undistilled Klein: true guidance by a second call."""
    return df.Flux2KleinPipeline(
        transformer=_flux2_transformer(guidance_embeds=False),
        scheduler=df.FlowMatchEulerDiscreteScheduler(shift=3.0, **DYNAMIC_SHIFT),
        vae=df.AutoencoderKLFlux2(**FOUR_LEVELS, sample_size=64),
        text_encoder=text.qwen3_encoder(),
        tokenizer=text.chat_tokenizer(text.CHAT_OF_USER_ONLY),
    )


def _flux2_transformer(*, guidance_embeds: bool) -> Any:
    return df.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=3 * WIDTH,
        timestep_guidance_channels=32,
        axes_dims_rope=(2, 2, 2, 2),
        guidance_embeds=guidance_embeds,
    )


def qwenimage() -> DiffusionPipeline:
    """True guidance by a second call, rescaled to the conditional norm."""
    transformer = df.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 2, 2),
    )
    vae = df.AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.0, 0.1, -0.1, 0.2],
        latents_std=[1.0, 1.1, 0.9, 1.2],
    )
    return df.QwenImagePipeline(
        transformer=transformer,
        scheduler=df.FlowMatchEulerDiscreteScheduler(shift_terminal=0.02, **DYNAMIC_SHIFT),
        vae=vae,
        text_encoder=text.qwen_vision_encoder(),
        tokenizer=text.chat_tokenizer(text.CHAT),
    )


def sd2() -> DiffusionPipeline:
    """v-prediction under DDIM; one call of the U-Net for both halves of the guidance."""
    unet = df.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4,
        cross_attention_dim=WIDTH,
        attention_head_dim=(2, 2),
        use_linear_projection=True,
    )
    return df.StableDiffusionPipeline(
        unet=unet,
        scheduler=df.DDIMScheduler(**DIFFUSION, clip_sample=False, set_alpha_to_one=False),
        vae=df.AutoencoderKL(**FOUR_LEVELS),
        text_encoder=text.clip_encoder(),
        tokenizer=text.clip_tokenizer(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def ddpm() -> DiffusionPipeline:
    """Pixels without text; a fresh draw of noise at every step but the last."""
    unet = df.UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )
    return df.DDPMPipeline(unet=unet, scheduler=df.DDPMScheduler())


def sdxl() -> DiffusionPipeline:
    """Two CLIPs, and sizes as embeddings; Euler on noise prediction."""
    unet = df.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        cross_attention_dim=2 * WIDTH,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
    )
    return df.StableDiffusionXLPipeline(
        unet=unet,
        scheduler=df.EulerDiscreteScheduler(**DIFFUSION),
        vae=df.AutoencoderKL(**FOUR_LEVELS),
        text_encoder=text.clip_encoder(),
        tokenizer=text.clip_tokenizer(),
        text_encoder_2=text.clip_encoder(projection=True),
        tokenizer_2=text.clip_tokenizer(),
    )


def z_image() -> DiffusionPipeline:
    """True guidance in a batch of two lists of pictures."""
    transformer = df.ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    return df.ZImagePipeline(
        transformer=transformer,
        scheduler=df.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=df.AutoencoderKL(**FOUR_LEVELS, shift_factor=0.1159, scaling_factor=0.3611, use_quant_conv=False),
        text_encoder=text.qwen3_model(),
        tokenizer=text.chat_tokenizer(text.CHAT),
    )


def sana() -> DiffusionPipeline:
    """Linear attention, a VAE without a Gaussian, DPM-Solver++ on flow matching."""
    transformer = df.SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=WIDTH,
        sample_size=32,
    )
    levels = ("ResBlock", "ResBlock", "EfficientViTBlock")
    vae = df.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=levels,
        decoder_block_types=levels,
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        encoder_qkv_multiscales=((), (), (5,)),
        decoder_qkv_multiscales=((), (), (5,)),
        encoder_layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    )
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    return df.SanaPipeline(
        transformer=transformer,
        scheduler=df.DPMSolverMultistepScheduler(**flow),
        vae=vae,
        text_encoder=text.gemma2_encoder(),
        tokenizer=text.chat_tokenizer(text.CHAT),
    )
