#!/usr/bin/env bash
# FlowMatchEulerDiscreteScheduler(shift=3) shifts its sigmas twice when it is given a number of steps, and once when it is given sigmas.
#
# Packages: torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6 (Python 3.11, CPU).
# sigma_min and sigma_max are taken from the sigmas that the constructor has shifted already, and the grid between them
# is shifted again: four steps end at sigma .0089 instead of .5. The same four sigmas given by the caller (as pipelines
# of Flux and SD3 do) are shifted once.
#
# Output seen:
#   by number: [1.0, 0.8577, 0.6022, 0.0089, 0.0]
#   by sigmas: [1.0, 0.9, 0.75, 0.5, 0.0]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null >"$folder/seen"
import numpy as np
from diffusers import FlowMatchEulerDiscreteScheduler

scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
scheduler.set_timesteps(4)
print("by number:", [round(float(sigma), 4) for sigma in scheduler.sigmas])
scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 4, 4))
print("by sigmas:", [round(float(sigma), 4) for sigma in scheduler.sigmas])
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN' || { echo "This is no longer so." >&2; exit 1; }
by number: [1.0, 0.8577, 0.6022, 0.0089, 0.0]
by sigmas: [1.0, 0.9, 0.75, 0.5, 0.0]
SEEN
