#!/usr/bin/env bash
# CFG-Zero* guidance of diffusers 0.42.1 with any `guidance_rescale` is NaN from the first step on.
#
# Packages: diffusers==0.42.1 torch==2.13.0 (Python 3.11).
# `ClassifierFreeZeroStarGuidance` replaces the prediction of the first `zero_init_steps` (1 by default) by zeros, and then
# rescales it to the deviation of the conditional one: the deviation of zeros is 0, so that it is divided by 0 and 0 times
# infinity is NaN, which every later step keeps. Both options are the class's own, and a rescale of 0.5 to 0.7 is usual with
# other guiders. One expects zeros to stay zeros. `zero_init_steps=0` or `guidance_rescale=0.0` avoids it.
#
# Output seen (the prediction of the first step):
#   guidance_rescale=0.0, zero_init_steps=1: zeros
#   guidance_rescale=0.5, zero_init_steps=1: NaN
#   guidance_rescale=0.5, zero_init_steps=0: finite
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null >"$folder/seen"
import torch
from diffusers.guiders import ClassifierFreeZeroStarGuidance

generator = torch.Generator().manual_seed(0)
with_prompt, without = (torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2))
for rescale, zeros in ((0.0, 1), (0.5, 1), (0.5, 0)):
    guider = ClassifierFreeZeroStarGuidance(guidance_scale=5.0, zero_init_steps=zeros, guidance_rescale=rescale)
    guider.set_state(step=0, num_inference_steps=4, timestep=torch.tensor(999))
    found = guider.forward(with_prompt, without).pred
    kind = "NaN" if found.isnan().all() else "zeros" if not found.any() else "finite" if found.isfinite().all() else "mixed"
    print(f"guidance_rescale={rescale}, zero_init_steps={zeros}: {kind}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN' || { echo "This is no longer so." >&2; exit 1; }
guidance_rescale=0.0, zero_init_steps=1: zeros
guidance_rescale=0.5, zero_init_steps=1: NaN
guidance_rescale=0.5, zero_init_steps=0: finite
SEEN
