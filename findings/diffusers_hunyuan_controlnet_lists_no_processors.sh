#!/usr/bin/env bash
# HunyuanDiT2DControlNetModel.attn_processors names every attention layer, and holds None for each.
#
# Packages: torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6 (Python 3.11, CPU).
# It asks its layers for get_processor(return_deprecated_lora=True), which returns nothing any more. So the usual way to put
# back what was there, model.set_attn_processor(before) with before = model.attn_processors, takes all processors away, and
# the model's next call raises. HunyuanDiT2DModel, whose layers are the same, lists its processors.
#
# Output seen:
#   HunyuanDiT2DModel: 2 layers, listed ['HunyuanAttnProcessor2_0']
#   HunyuanDiT2DControlNetModel: 2 layers, listed ['NoneType']
#   processors in its layers before and after putting back what was listed: ['HunyuanAttnProcessor2_0'] ['NoneType']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null >"$folder/seen"
from diffusers import HunyuanDiT2DControlNetModel, HunyuanDiT2DModel


def kinds(processors):
    return sorted({type(processor).__name__ for processor in processors})


def layers(model):
    return [module for module in model.modules() if hasattr(module, "get_processor")]


size = dict(num_attention_heads=2, attention_head_dim=4, hidden_size=8, in_channels=4, patch_size=2, sample_size=8)
plain = HunyuanDiT2DModel(num_layers=1, **size)
control = HunyuanDiT2DControlNetModel(transformer_num_layers=4, **size)
for model in (plain, control):
    listed = model.attn_processors
    print(f"{type(model).__name__}: {len(listed)} layers, listed {kinds(listed.values())}")
before = kinds(layer.processor for layer in layers(control))
control.set_attn_processor(control.attn_processors)
after = kinds(layer.processor for layer in layers(control))
print("processors in its layers before and after putting back what was listed:", before, after)
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN' || { echo "This is no longer so." >&2; exit 1; }
HunyuanDiT2DModel: 2 layers, listed ['HunyuanAttnProcessor2_0']
HunyuanDiT2DControlNetModel: 2 layers, listed ['NoneType']
processors in its layers before and after putting back what was listed: ['HunyuanAttnProcessor2_0'] ['NoneType']
SEEN
