"""Tiny text-to-video pipelines: HunyuanVideo and 1.5, the Wan family, CogVideoX, LTX and LTX-2, Mochi."""

import warnings
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


def hunyuanvideo(**changes: Any) -> DiffusionPipeline:
    """Embedded guidance, and true guidance by a second call."""
    size = {
        "in_channels": 4,
        "out_channels": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "num_layers": 1,
        "num_single_layers": 1,
        "num_refiner_layers": 1,
        "text_embed_dim": WIDTH,
        "pooled_projection_dim": WIDTH,
        "rope_axes_dim": (2, 2, 4),
    }
    transformer = df.HunyuanVideoTransformer3DModel(**{**size, **changes})
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


def hunyuanvideo15(task_type: str = "t2v") -> DiffusionPipeline:
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
        task_type=task_type,
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
    return shortened(pipeline)


def shortened(pipeline: Any) -> DiffusionPipeline:
    """HunyuanVideo 1.5 with short prompts: at its own lengths every evaluation attends over 2,000 tokens of padding.

    Loading restores them.
    """
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
    return _wan(scheduler, transformer_2=wan_transformer(channels=16), boundary_ratio=0.875)


def wan22_5b() -> DiffusionPipeline:
    """A timestep for every token, and the residual, patched VAE."""
    scheduler = df.UniPCMultistepScheduler(**UNIPC_FLOW)
    return _wan(scheduler, vae=wan22_vae(), transformer=wan_transformer(channels=8), expand_timesteps=True)


def wan22_vae() -> Any:
    """The residual VAE of 16x16x4."""
    return df.AutoencoderKLWan(
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


def _wan(scheduler: SchedulerMixin, **components: Any) -> DiffusionPipeline:
    usual = {
        "vae": df.AutoencoderKLWan(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        "transformer": wan_transformer(channels=16),
        "text_encoder": text.t5_encoder(multilingual=True),
        "tokenizer": text.t5_tokenizer(),
    }
    return df.WanPipeline(scheduler=scheduler, **(usual | components))


def helios() -> DiffusionPipeline:
    """Chunks of a clip one after another, each sampled with what was made before it as its history."""
    transformer = df.HeliosTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=WIDTH,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        rope_dim=(4, 4, 4),
    )
    with warnings.catch_warnings():
        # diffusers 0.42 hands torch tensors to NumPy 2 in this scheduler's constructor.
        warnings.filterwarnings("ignore", "__array_wrap__ must accept", DeprecationWarning)
        scheduler = df.HeliosScheduler(stages=1, stage_range=[0, 1], gamma=1 / 3)
    return df.HeliosPipeline(
        scheduler=scheduler,
        vae=df.AutoencoderKLWan(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        text_encoder=text.t5_encoder(multilingual=True),
        tokenizer=text.t5_tokenizer(),
        transformer=transformer,
    )


def wan_transformer(channels: int, in_channels: int | None = None, image_dim: int | None = None) -> Any:
    """Two blocks; of a picture, its latents as further channels and its encoding of width `image_dim`."""
    return df.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=in_channels or channels,
        out_channels=channels,
        text_dim=WIDTH,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=32,
        image_dim=image_dim,
        added_kv_proj_dim=image_dim and 24,
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


def mochi() -> DiffusionPipeline:
    """Noise levels that rise; the loop casts its latents."""
    transformer = df.MochiTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        pooled_projection_dim=16,
        in_channels=12,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        max_sequence_length=16,
    )
    vae = df.AutoencoderKLMochi(
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
    )
    return df.MochiPipeline(
        transformer=transformer,
        scheduler=df.FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        vae=vae,
        text_encoder=text.t5_encoder(),
        tokenizer=text.t5_tokenizer(),
    )


def ltx2() -> DiffusionPipeline:
    """Video and sound, of one model and two schedulers."""
    return df.LTX2Pipeline(**ltx2_components())


def ltx2_components() -> dict[str, Any]:
    """The components of LTX-2; 240 samples of sound for each frame of its spectrogram, as those of the real one."""
    connectors = import_module("diffusers.pipelines.ltx2").LTX2TextConnectors
    vocoder = import_module("diffusers.pipelines.ltx2.vocoder").LTX2Vocoder
    transformer = df.LTX2VideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        audio_in_channels=4,
        audio_out_channels=4,
        audio_num_attention_heads=2,
        audio_attention_head_dim=4,
        audio_cross_attention_dim=8,
        num_layers=2,
        caption_channels=WIDTH,
        rope_double_precision=False,
        rope_type="split",
    )
    heads = {"num_attention_heads": 4, "attention_head_dim": 4, "num_layers": 1, "num_learnable_registers": None}
    vae = df.AutoencoderKLLTX2Video(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        upsample_residual=(False, False, False),
        upsample_factor=(1, 1, 1),
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )
    audio_vae = df.AutoencoderKLLTX2Audio(
        base_channels=4, ch_mult=(1, 1, 1), num_res_blocks=1, resolution=32, latent_channels=2, mel_bins=8
    )
    return {
        "transformer": transformer,
        "connectors": connectors(
            caption_channels=WIDTH,
            text_proj_in_factor=3,
            **{f"video_connector_{name}": value for name, value in heads.items()},
            **{f"audio_connector_{name}": value for name, value in heads.items()},
            connector_rope_base_seq_len=32,
            rope_double_precision=False,
            rope_type="split",
        ),
        "vae": vae,
        "audio_vae": audio_vae,
        "vocoder": vocoder(
            in_channels=16,
            hidden_channels=16,
            upsample_kernel_sizes=[16, 10, 12],
            upsample_factors=[8, 5, 6],
            resnet_kernel_sizes=[3],
            resnet_dilations=[[1, 3, 5]],
            output_sampling_rate=24000,
        ),
        "scheduler": df.FlowMatchEulerDiscreteScheduler(
            shift_terminal=0.1, base_shift=0.95, max_shift=2.05, use_dynamic_shifting=True
        ),
        "text_encoder": text.gemma3_encoder(),
        "tokenizer": text.chat_tokenizer(text.CHAT),
    }
