#!/usr/bin/env bash
# from_config() of a diffusers scheduler silently drops a value that the caller changed, where the first scheduler had it by default.
#
# Packages: torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6 (Python 3.11, CPU).
# A config remembers in `_use_default_values` which keys had their default. from_config() takes such keys out again,
# also when the mapping it is given holds another value for one. One expects {**scheduler.config, key: value} to make a
# scheduler with that value; as a keyword argument the same value is taken.
#
# Output seen:
#   in the mapping:  leading
#   as an argument:  trailing
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null >"$folder/seen"
from diffusers import DDIMScheduler

config = DDIMScheduler().config
print("in the mapping: ", DDIMScheduler.from_config({**config, "timestep_spacing": "trailing"}).config.timestep_spacing)
print("as an argument: ", DDIMScheduler.from_config(config, timestep_spacing="trailing").config.timestep_spacing)
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN' || { echo "This is no longer so." >&2; exit 1; }
in the mapping:  leading
as an argument:  trailing
SEEN
