#!/usr/bin/env bash
# UniPCMultistepScheduler with solver_type='bh1' ends in NaN with its default final sigma.
#
# Packages: torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6 (Python 3.11, CPU).
# With final_sigmas_type='zero', the default, the last step has an infinite log-SNR; the variant 'bh1' multiplies by it,
# and every value of the last latents is NaN. 'bh2', the default, is finite on the same grid. One expects a documented
# option to work with the other options' defaults, or to be refused.
#
# Output seen:
#   {'solver_type': 'bh2'} finite
#   {'solver_type': 'bh1'} NaN
#   {'solver_type': 'bh1', 'final_sigmas_type': 'sigma_min'} finite
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null >"$folder/seen"
import torch
from diffusers import UniPCMultistepScheduler

for options in ({"solver_type": "bh2"}, {"solver_type": "bh1"}, {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}):
    scheduler = UniPCMultistepScheduler(**options)
    scheduler.set_timesteps(10)
    latents = torch.ones(1, 4, 2, 2)
    for timestep in scheduler.timesteps:
        latents = scheduler.step(torch.full_like(latents, 0.1), timestep, latents).prev_sample
    print(options, "finite" if latents.isfinite().all() else "NaN")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN' || { echo "This is no longer so." >&2; exit 1; }
{'solver_type': 'bh2'} finite
{'solver_type': 'bh1'} NaN
{'solver_type': 'bh1', 'final_sigmas_type': 'sigma_min'} finite
SEEN
