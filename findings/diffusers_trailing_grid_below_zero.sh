#!/usr/bin/env bash
# Trailing timesteps of diffusers' DDIM scheduler have one step too many, at t = -1, for some numbers of steps.
#
# Packages: torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6 (Python 3.11, CPU).
# timestep_spacing='trailing' takes arange(1000, 0, -1000 / N): where 1000 / N is rounded down in floating point, the
# range holds N + 1 values, and the last one is -1 after the subtraction. One expects N timesteps, the last at 0 or
# above; the picture of such a grid is ruined. 62 of the numbers from 1 to 1000 are concerned.
#
# Output seen:
#   60 steps asked for, 60 timesteps, the last at 16
#   61 steps asked for, 62 timesteps, the last at -1
#   103 steps asked for, 104 timesteps, the last at -1
#   62 of 1000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null >"$folder/seen"
from diffusers import DDIMScheduler

for steps in (60, 61, 103):
    scheduler = DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    print(steps, "steps asked for,", len(scheduler.timesteps), "timesteps, the last at", int(scheduler.timesteps[-1]))
bad = 0
for steps in range(1, 1001):
    scheduler = DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    bad += int(scheduler.timesteps[-1]) < 0
print(bad, "of 1000")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN' || { echo "This is no longer so." >&2; exit 1; }
60 steps asked for, 60 timesteps, the last at 16
61 steps asked for, 62 timesteps, the last at -1
103 steps asked for, 104 timesteps, the last at -1
62 of 1000
SEEN
