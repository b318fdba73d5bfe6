#!/usr/bin/env bash
# LCMScheduler and TCDScheduler of diffusers accept timestep_spacing and ignore it.
#
# Packages: torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6 (Python 3.11, CPU).
# The constructors document timestep_spacing ('leading' by default); the grid is that of the distillation's schedule
# whatever it says. One expects other timesteps, or a refusal.
#
# Output seen:
#   LCMScheduler [999, 759, 499, 259] for all three
#   TCDScheduler [999, 759, 499, 259] for all three
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null >"$folder/seen"
from diffusers import LCMScheduler, TCDScheduler

for kind in (LCMScheduler, TCDScheduler):
    grids = []
    for spacing in ("leading", "trailing", "linspace"):
        scheduler = kind(timestep_spacing=spacing)
        scheduler.set_timesteps(4)
        grids.append(scheduler.timesteps.tolist())
    print(kind.__name__, grids[0], "for all three" if grids[0] == grids[1] == grids[2] else "and others")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN' || { echo "This is no longer so." >&2; exit 1; }
LCMScheduler [999, 759, 499, 259] for all three
TCDScheduler [999, 759, 499, 259] for all three
SEEN
