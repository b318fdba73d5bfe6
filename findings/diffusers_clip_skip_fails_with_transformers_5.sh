#!/usr/bin/env bash
# Stable Diffusion's `clip_skip` fails in diffusers 0.42.1 with transformers 5: its text encoder has no `text_model` any more.
#
# Packages: torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 (Python 3.11, CPU).
# `clip_skip=1` is a documented argument of the pipeline, which then norms an earlier layer of the text encoder by
# `text_encoder.text_model.final_layer_norm`. transformers 5, with which this release works otherwise, has the layers of
# CLIPTextModel in the model itself. Without `clip_skip` the same pipeline makes its picture. One expects an argument to work
# with the versions that the package allows; as it is, the prompt has to be encoded by hand (`prompt_embeds`).
#
# Output seen:
#   clip_skip None: a picture of (1, 8, 8, 3)
#   clip_skip 1: AttributeError: 'CLIPTextModel' object has no attribute 'text_model'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null >"$folder/seen"
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

words = ["a</w>", "red</w>", "ball</w>", "<|startoftext|>", "<|endoftext|>"]
tokenizer = CLIPTokenizer(vocab={word: place for place, word in enumerate(words)}, merges=[], model_max_length=8)
size = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": 3}
text_encoder = CLIPTextModel(
    CLIPTextConfig(vocab_size=len(words), max_position_embeddings=8, bos_token_id=3, eos_token_id=4, **size)
)
unet = UNet2DConditionModel(
    sample_size=8,
    block_out_channels=(8,),
    layers_per_block=1,
    cross_attention_dim=8,
    norm_num_groups=2,
    attention_head_dim=4,
    down_block_types=("CrossAttnDownBlock2D",),
    up_block_types=("CrossAttnUpBlock2D",),
)
vae = AutoencoderKL(block_out_channels=(8,), latent_channels=4, norm_num_groups=2)
pipe = StableDiffusionPipeline(
    vae, text_encoder, tokenizer, unet, DDIMScheduler(), None, None, requires_safety_checker=False
)
pipe.set_progress_bar_config(disable=True)
for clip_skip in (None, 1):
    try:
        images = pipe("a red ball", num_inference_steps=1, clip_skip=clip_skip, output_type="np").images
        print(f"clip_skip {clip_skip}: a picture of {images.shape}")
    except AttributeError as error:
        print(f"clip_skip {clip_skip}: AttributeError: {error}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN' || { echo "This is no longer so." >&2; exit 1; }
clip_skip None: a picture of (1, 8, 8, 3)
clip_skip 1: AttributeError: 'CLIPTextModel' object has no attribute 'text_model'
SEEN
