"""The demo models' parts: stock diffusers and transformers classes with small configurations, built offline."""

import json
import string
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import StableDiffusion3Pipeline
from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from genrun.adapters.demo.world import CLIP_FRAMES, FRAME_PX, vocabulary
from genrun.adapters.training.recipe import Recipe

LATENT_CHANNELS = 16
LATENT_PX = FRAME_PX // 8
TEXT_WIDTH = 64
MAX_TOKENS = 12
CLIP_SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def build_pipeline(recipe: Recipe) -> CogVideoXPipeline | StableDiffusion3Pipeline:
    """Build the recipe's whole pipeline with untrained weights, the same for the same ``recipe.seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return video_pipeline() if recipe.kind == "video" else image_pipeline()


def video_pipeline() -> CogVideoXPipeline:
    """Build a CogVideoX pipeline for 9 frames of 64x64: 3 x 8 x 8 latents of 16 channels, 48 + 12 tokens."""
    tokenizer = t5_tokenizer()
    encoder = t5_encoder(tokenizer)
    vae = AutoencoderKLCogVideoX(
        **four_blocks("CogVideoXDownBlock3D", "CogVideoXUpBlock3D", (16, 32, 32, 32)),
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=4,
        temporal_compression_ratio=4,
        sample_height=FRAME_PX,
        sample_width=FRAME_PX,
    )
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=32,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        time_embed_dim=128,
        text_embed_dim=TEXT_WIDTH,
        num_layers=6,
        sample_width=LATENT_PX,
        sample_height=LATENT_PX,
        sample_frames=CLIP_FRAMES,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=MAX_TOKENS,
    )
    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=1.0,
        timestep_spacing="trailing",
        clip_sample=False,
    )
    return CogVideoXPipeline(tokenizer, encoder, vae, transformer, scheduler)


def image_pipeline() -> StableDiffusion3Pipeline:
    """Build a Stable Diffusion 3 pipeline for 64x64: 8 x 8 latents of 16 channels, 16 + 24 tokens."""
    tokenizer = clip_tokenizer()
    encoders = [clip_encoder(tokenizer) for _ in range(2)]
    vae = AutoencoderKL(
        **four_blocks("DownEncoderBlock2D", "UpDecoderBlock2D", (16, 32, 48, 64)),
        latent_channels=LATENT_CHANNELS,
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=FRAME_PX,
        shift_factor=0.0,
    )
    transformer = SD3Transformer2DModel(
        sample_size=LATENT_PX,
        patch_size=2,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=6,
        attention_head_dim=32,
        num_attention_heads=4,
        caption_projection_dim=128,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        pos_embed_max_size=LATENT_PX // 2,
    )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    t5 = t5_tokenizer()
    return StableDiffusion3Pipeline(
        transformer, scheduler, vae, encoders[0], tokenizer, encoders[1], tokenizer, t5_encoder(t5), t5
    )


def four_blocks(down: str, up: str, channels: tuple[int, int, int, int]) -> dict[str, Any]:
    """Return a VAE's arguments for four resolutions. Typed loosely: diffusers annotates these tuples as of length one."""
    return {
        "down_block_types": (down,) * len(channels),
        "up_block_types": (up,) * len(channels),
        "block_out_channels": channels,
    }


def t5_tokenizer() -> T5Tokenizer:
    """Build a T5 tokenizer with one piece for each word of the world, and letters for any other word."""
    words = [("▁" + word, -2.0) for word in vocabulary()]
    letters = [(letter, -9.0) for letter in string.ascii_lowercase]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    known = {piece for piece, _ in special + words}
    pieces = special + words + [entry for entry in letters if entry[0] not in known]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=MAX_TOKENS)


def t5_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    """Build a frozen random T5 encoder: it tells words and their order apart, which is all that a transformer needs."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=TEXT_WIDTH,
        d_ff=2 * TEXT_WIDTH,
        d_kv=16,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return T5EncoderModel(config).eval()


def clip_tokenizer() -> CLIPTokenizer:
    """Build a CLIP tokenizer whose byte-pair merges make one token of each word of the world."""
    words = vocabulary()
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=1000, end_of_word_suffix="</w>", min_frequency=1, show_progress=False)
    bpe.train_from_iterator([" ".join(words)], trainer)
    model = json.loads(bpe.to_str())["model"]
    letters = [letter + end for letter in string.ascii_lowercase for end in ("", "</w>")]
    tokens = [*CLIP_SPECIAL, *dict.fromkeys([*letters, *model["vocab"]])]
    vocab = {token: index for index, token in enumerate(tokens)}
    # transformers annotates merges as strings, but passes them to a library that takes pairs.
    merges: Any = [tuple(pair) for pair in model["merges"]]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=MAX_TOKENS)


def clip_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """Build a frozen random CLIP text encoder; its embeddings have unit variance, since no layer normalises them."""
    encoder = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH // 2,
            intermediate_size=TEXT_WIDTH,
            projection_dim=TEXT_WIDTH // 2,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=CLIP_SPECIAL.index(str(tokenizer.bos_token)),
            eos_token_id=CLIP_SPECIAL.index(str(tokenizer.eos_token)),
            pad_token_id=CLIP_SPECIAL.index(str(tokenizer.pad_token)),
        )
    )
    torch.nn.init.normal_(encoder.text_model.embeddings.token_embedding.weight, std=1.0)
    torch.nn.init.normal_(encoder.text_model.embeddings.position_embedding.weight, std=0.3)
    return encoder.eval()
