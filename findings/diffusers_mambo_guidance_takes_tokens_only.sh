#!/usr/bin/env bash
# MagnitudeAwareGuidance of diffusers 0.42.1 raises for every model whose predictions are pictures or clips: it works on
# sequences of tokens alone.
#
# Packages: diffusers==0.42.1 torch==2.13.0 (Python 3.11).
# The guider (MAMBO-G) weighs guidance by a norm over all but the first dimension, which it asks of `torch.norm` without an
# order: that takes two dimensions as a matrix, and refuses more. Predictions of (batch, tokens, channels), as of Qwen-Image
# and Flux, have two; those of a U-Net (batch, channels, height, width) and of Wan (with frames) have three and four. The
# class is offered as a guider for any modular pipeline, and says nothing of shapes; the other guiders take them all.
#
# Output seen:
#   ClassifierFreeGuidance, (1, 16, 4): works
#   ClassifierFreeGuidance, (1, 4, 8, 8): works
#   ClassifierFreeGuidance, (1, 4, 3, 8, 8): works
#   MagnitudeAwareGuidance, (1, 16, 4): works
#   MagnitudeAwareGuidance, (1, 4, 8, 8): RuntimeError: linalg.matrix_norm: dim must be a 2-tuple. Got 1 2 3
#   MagnitudeAwareGuidance, (1, 4, 3, 8, 8): RuntimeError: linalg.matrix_norm: dim must be a 2-tuple. Got 1 2 3 4
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null >"$folder/seen"
import torch
from diffusers.guiders import ClassifierFreeGuidance, MagnitudeAwareGuidance

generator = torch.Generator().manual_seed(0)
for guider_class in (ClassifierFreeGuidance, MagnitudeAwareGuidance):
    for shape in ((1, 16, 4), (1, 4, 8, 8), (1, 4, 3, 8, 8)):
        with_prompt, without = (torch.randn(shape, generator=generator) for _ in range(2))
        guider = guider_class(guidance_scale=5.0)
        guider.set_state(step=0, num_inference_steps=4, timestep=torch.tensor(999))
        try:
            found = guider.forward(with_prompt, without).pred
            said = "works" if found.shape == shape and found.isfinite().all() else f"{tuple(found.shape)}"
        except RuntimeError as error:
            said = f"RuntimeError: {error}"
        print(f"{guider_class.__name__}, {shape}: {said}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN' || { echo "This is no longer so." >&2; exit 1; }
ClassifierFreeGuidance, (1, 16, 4): works
ClassifierFreeGuidance, (1, 4, 8, 8): works
ClassifierFreeGuidance, (1, 4, 3, 8, 8): works
MagnitudeAwareGuidance, (1, 16, 4): works
MagnitudeAwareGuidance, (1, 4, 8, 8): RuntimeError: linalg.matrix_norm: dim must be a 2-tuple. Got 1 2 3
MagnitudeAwareGuidance, (1, 4, 3, 8, 8): RuntimeError: linalg.matrix_norm: dim must be a 2-tuple. Got 1 2 3 4
SEEN
