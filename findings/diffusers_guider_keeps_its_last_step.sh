#!/usr/bin/env bash
# A guider that stops before the end (ClassifierFreeGuidance(stop=0.5)) still counts as stopped when the next call begins.
#
# Packages: torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6 (Python 3.11, CPU).
# Nothing sets the step back after a loop. HunyuanVideo15Pipeline asks the guider before its loop how many conditions there
# are, and encodes a negative prompt only for two: its second call with the same guider encodes none, and then guides its
# first steps with it. A guider made anew for each call (guider.new()) has two conditions again.
#
# Output seen:
#   conditions before the first call: 2
#   conditions in its steps: [2, 2, 1, 1]
#   conditions before the second call: 1
#   conditions of guider.new(): 2
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null >"$folder/seen"
import torch
from diffusers import ClassifierFreeGuidance

guider = ClassifierFreeGuidance(guidance_scale=4.0, stop=0.5)
print("conditions before the first call:", guider.num_conditions)
steps = []
for step, timestep in enumerate(torch.linspace(1000, 250, 4)):
    guider.set_state(step=step, num_inference_steps=4, timestep=timestep)
    steps.append(guider.num_conditions)
print("conditions in its steps:", steps)
print("conditions before the second call:", guider.num_conditions)
print("conditions of guider.new():", guider.new().num_conditions)
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN' || { echo "This is no longer so." >&2; exit 1; }
conditions before the first call: 2
conditions in its steps: [2, 2, 1, 1]
conditions before the second call: 1
conditions of guider.new(): 2
SEEN
