"""Tiny pipelines that start from a picture: the Wan family, HunyuanVideo and 1.5, CogVideoX 1.5, LTX-2, QwenImage, Flux."""

from importlib import import_module
from typing import Any

from diffusers.guiders.classifier_free_guidance import ClassifierFreeGuidance
from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from . import images, text, videos
from .text import WIDTH

# Untyped on purpose, as in `images`.
df: Any = import_module("diffusers")
tf: Any = import_module("transformers")


def wan21_i2v() -> DiffusionPipeline:
    """The picture's latents beside the noisy ones, and CLIP's view of it."""
    transformer = videos.wan_transformer(channels=16, in_channels=36, image_dim=WIDTH)
    picture = {"image_encoder": text.clip_vision_encoder(), "image_processor": text.clip_image_processor()}
    return _wan(transformer=transformer, **picture)


def wan22_i2v() -> DiffusionPipeline:
    """Two experts, without CLIP: the boundary lies inside three steps and six."""
    experts = {name: videos.wan_transformer(channels=16, in_channels=36) for name in ("transformer", "transformer_2")}
    return _wan(**experts, boundary_ratio=0.9)


def wan22_5b_i2v() -> DiffusionPipeline:
    """A timestep for every token: those of the picture are clean."""
    return _wan(vae=videos.wan22_vae(), transformer=videos.wan_transformer(channels=8), expand_timesteps=True)


def _wan(**components: Any) -> DiffusionPipeline:
    return df.WanImageToVideoPipeline(
        **{
            "scheduler": df.UniPCMultistepScheduler(**videos.UNIPC_FLOW),
            "vae": df.AutoencoderKLWan(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
            "text_encoder": text.t5_encoder(multilingual=True),
            "tokenizer": text.t5_tokenizer(),
            **components,
        }
    )


def hunyuanvideo_i2v(**transformer: Any) -> DiffusionPipeline:
    """The picture in the prompt, and in the place of the first frame's tokens; guidance embedded."""
    pipeline: Any = videos.hunyuanvideo(**{"image_condition_type": "token_replace", **transformer})
    names = ("transformer", "scheduler", "vae", "text_encoder_2", "tokenizer", "tokenizer_2")
    return df.HunyuanVideoImageToVideoPipeline(
        **{name: getattr(pipeline, name) for name in names},
        text_encoder=text.llava_encoder(),
        image_processor=text.clip_image_processor(),
    )


def hunyuanvideo15_i2v() -> DiffusionPipeline:
    """The picture's latents beside the noisy ones, and SigLIP's view of it; guided by a guider."""
    pipeline: Any = videos.hunyuanvideo15(task_type="i2v")
    names = ("transformer", "scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    found = df.HunyuanVideo15ImageToVideoPipeline(
        **{name: getattr(pipeline, name) for name in names},
        guider=ClassifierFreeGuidance(guidance_scale=6.0),
        image_encoder=text.siglip_encoder(),
        feature_extractor=tf.SiglipImageProcessor(size={"height": 16, "width": 16}),
    )
    return videos.shortened(found)


def cogvideox15_i2v() -> DiffusionPipeline:
    """Patches of two frames, as 1.5 has them; v-prediction under DDIM."""
    pipeline: Any = videos.cogvideox_ddim()
    transformer = df.CogVideoXTransformer3DModel.from_config(
        pipeline.transformer.config,
        in_channels=8,
        patch_size_t=2,
        patch_bias=False,
        ofs_embed_dim=16,
        sample_height=16,
        sample_width=16,
    )
    components = {**pipeline.components, "transformer": transformer}
    return df.CogVideoXImageToVideoPipeline(**components)


def ltx2_i2v() -> DiffusionPipeline:
    """The picture as the clean first frame; with sound."""
    return df.LTX2ImageToVideoPipeline(**videos.ltx2_components())


def qwenimage_edit() -> DiffusionPipeline:
    """The picture's latents after the noisy ones, and Qwen's view of it in the prompt."""
    return df.QwenImageEditPlusPipeline(**_qwen())


def qwenimage_edit_first() -> DiffusionPipeline:
    """The first release, of one picture."""
    return df.QwenImageEditPipeline(**_qwen())


def _qwen() -> dict[str, Any]:
    pipeline: Any = images.qwenimage()
    # Pictures are scaled to a million pixels before they are encoded, of which this one makes 256 tokens.
    vae = df.AutoencoderKLQwenImage.from_config(
        pipeline.vae.config, dim_mult=[1] * 6, temperal_downsample=[False, True, True, False, False]
    )
    processor = text.qwen_processor()
    return {
        "transformer": pipeline.transformer,
        "scheduler": pipeline.scheduler,
        "vae": vae,
        "text_encoder": text.qwen_vision_encoder(seeing=True),
        "tokenizer": processor.tokenizer,
        "processor": processor,
    }


def flux_kontext() -> DiffusionPipeline:
    """The picture's latents after the noisy ones; guidance embedded."""
    pipeline: Any = images.flux()
    names = ("transformer", "scheduler", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    return df.FluxKontextPipeline(**{name: getattr(pipeline, name) for name in names})
