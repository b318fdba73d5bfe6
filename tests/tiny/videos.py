"""Tiny text-to-video pipelines: HunyuanVideo and 1.5, the Wan family, CogVideoX, LTX."""

from importlib import import_module
from typing import Any

from diffusers.guiders.classifier_free_guidance import ClassifierFreeGuidance
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from transformers.models.byt5 import ByT5Tokenizer

from . import text
from .text import WIDTH

# Untyped on purpose, as in `images`.
df: Any = import_module("diffusers")

UNIPC_FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
COG_SCHEDULE = {
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "snr_shift_scale": 1.0,
    "timestep_spacing": "trailing",
}


def hunyuanvideo() -> DiffusionPipeline:
    """Embedded guidance, and true guidance by a second call."""
    transformer = df.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        rope_axes_dim=(2, 2, 4),
    )
    vae = df.AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2
    )
    return df.HunyuanVideoPipeline(
        transformer=transformer,
        scheduler=df.FlowMatchEulerDiscreteScheduler(shift=7.0),
        vae=vae,
        text_encoder=text.llama_encoder(),
        tokenizer=text.llama_tokenizer(),
        text_encoder_2=text.clip_encoder(),
        tokenizer_2=text.clip_tokenizer(),
    )


def hunyuanvideo15() -> DiffusionPipeline:
    """Guidance by a guider, which is told the loop's counter."""
    transformer = df.HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_refiner_layers=1,
        text_embed_dim=WIDTH,
        text_embed_2_dim=WIDTH,
        image_embed_dim=8,
        rope_axes_dim=(2, 2, 4),
        target_size=32,
        task_type="t2v",
    )
    vae = df.AutoencoderKLHunyuanVideo15(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        spatial_compression_ratio=8,
        temporal_compression_ratio=4,
    )
    pipeline = df.HunyuanVideo15Pipeline(
        transformer=transformer,
        scheduler=df.FlowMatchEulerDiscreteScheduler(shift=7.0),
        vae=vae,
        text_encoder=text.qwen_text_encoder(),
        tokenizer=text.chat_tokenizer(text.CHAT),
        text_encoder_2=text.t5_encoder(),
        tokenizer_2=ByT5Tokenizer(),
        guider=ClassifierFreeGuidance(guidance_scale=6.0),
    )
    # At its own lengths every evaluation attends over 2,000 tokens of padding. Loading restores them.
    pipeline.system_message = "Describe."
    pipeline.prompt_template_encode_start_idx = 8
    pipeline.tokenizer_max_length = 32
    pipeline.tokenizer_2_max_length = 8
    pipeline.vision_num_semantic_tokens = 4
    return pipeline


def wan21() -> DiffusionPipeline:
    """Two calls a step under the multistep UniPC, as released."""
    return _wan(df.UniPCMultistepScheduler(**UNIPC_FLOW))


def wan21_euler() -> DiffusionPipeline:
    """Wan 2.1 under the Euler scheduler that the papers use."""
    return _wan(df.FlowMatchEulerDiscreteScheduler(shift=3.0))


def wan22() -> DiffusionPipeline:
    """Two experts: the boundary lies inside six steps."""
    scheduler = df.UniPCMultistepScheduler(**UNIPC_FLOW)
    return _wan(scheduler, transformer_2=_wan_transformer(channels=16), boundary_ratio=0.875)


def wan22_5b() -> DiffusionPipeline:
    """A timestep for every token, and the residual, patched VAE."""
    vae = df.AutoencoderKLWan(
        base_dim=4,
        z_dim=8,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.0] * 8,
        latents_std=[1.0] * 8,
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    )
    scheduler = df.UniPCMultistepScheduler(**UNIPC_FLOW)
    return _wan(scheduler, vae=vae, transformer=_wan_transformer(channels=8), expand_timesteps=True)


def _wan(scheduler: SchedulerMixin, **components: Any) -> DiffusionPipeline:
    usual = {
        "vae": df.AutoencoderKLWan(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        "transformer": _wan_transformer(channels=16),
        "text_encoder": text.t5_encoder(multilingual=True),
        "tokenizer": text.t5_tokenizer(),
    }
    return df.WanPipeline(scheduler=scheduler, **(usual | components))


def _wan_transformer(channels: int) -> Any:
    return df.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=channels,
        out_channels=channels,
        text_dim=WIDTH,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
    )


def cogvideox_ddim() -> DiffusionPipeline:
    """One call a step for both halves of the guidance, zero terminal SNR, trailing steps."""
    return _cogvideox(df.CogVideoXDDIMScheduler(**COG_SCHEDULE))


def cogvideox_dpm() -> DiffusionPipeline:
    """CogVideoX under its stochastic second-order scheduler, which is handed the previous estimate."""
    return _cogvideox(df.CogVideoXDPMScheduler(**COG_SCHEDULE))


def _cogvideox(scheduler: SchedulerMixin) -> DiffusionPipeline:
    transformer = df.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=16,
        text_embed_dim=WIDTH,
        num_layers=2,
        sample_width=4,
        sample_height=4,
        sample_frames=9,
        max_text_seq_length=226,
        use_rotary_positional_embeddings=True,
    )
    vae = df.AutoencoderKLCogVideoX(
        block_out_channels=(4, 4, 4, 4),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        sample_height=32,
        sample_width=32,
    )
    return df.CogVideoXPipeline(
        transformer=transformer,
        scheduler=scheduler,
        vae=vae,
        text_encoder=text.t5_encoder(),
        tokenizer=text.t5_tokenizer(),
    )


def ltx() -> DiffusionPipeline:
    """One call a step for both halves of the guidance, packed latents."""
    transformer = df.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=2,
        caption_channels=WIDTH,
    )
    vae = df.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    )
    return df.LTXPipeline(
        transformer=transformer,
        scheduler=df.FlowMatchEulerDiscreteScheduler(
            shift_terminal=0.1, base_shift=0.95, max_shift=2.05, use_dynamic_shifting=True
        ),
        vae=vae,
        text_encoder=text.t5_encoder(),
        tokenizer=text.t5_tokenizer(),
    )
