#!/usr/bin/env bash
# FlowMatchEulerDiscreteScheduler with shift_terminal makes the only sigma of a single step NaN.
#
# Packages: torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6 (Python 3.11, CPU).
# stretch_shift_to_terminal() divides by 1 - the last sigma; of a single step that sigma is 1, and 0 / 0 is NaN. LTX-
# Video's scheduler is configured with shift_terminal = 0.1, so that one step of it samples NaN without an error.
#
# Output seen:
#   1 [nan, 0.0]
#   2 [1.0, 0.1, 0.0]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null >"$folder/seen"
from diffusers import FlowMatchEulerDiscreteScheduler

for steps in (1, 2):
    scheduler = FlowMatchEulerDiscreteScheduler(shift_terminal=0.1)
    scheduler.set_timesteps(steps)
    print(steps, [round(float(sigma), 4) for sigma in scheduler.sigmas])
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN' || { echo "This is no longer so." >&2; exit 1; }
1 [nan, 0.0]
2 [1.0, 0.1, 0.0]
SEEN
