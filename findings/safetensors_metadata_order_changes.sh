#!/usr/bin/env bash
# safetensors writes the same tensors and the same metadata as different bytes from one call to the next.
#
# Packages: torch==2.13.0 safetensors==0.8.0 numpy==2.4.6 packaging==26.3 (Python 3.11, CPU).
# Entries of the metadata are written in the order of a hash map that is seeded anew for each call, so that two files of
# equal content have different SHA-256. One expects save() to be a function of what it is given, as it is without
# metadata; whoever compares files by hash has to compare tensors instead, or keep one entry of metadata at most.
#
# Output seen:
#   0 entries of metadata: always the same bytes
#   1 entries of metadata: always the same bytes
#   3 entries of metadata: different bytes
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 safetensors==0.8.0 numpy==2.4.6 packaging==26.3
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null >"$folder/seen"
import torch
from safetensors.torch import save

tensors = {"a": torch.ones(2), "b": torch.zeros(3)}
for metadata in (None, {"one": "1"}, {"one": "1", "two": "2", "three": "3"}):
    different = len({save(tensors, metadata) for _ in range(200)})
    print(0 if metadata is None else len(metadata), "entries of metadata:", "always the same bytes" if different == 1 else "different bytes")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN' || { echo "This is no longer so." >&2; exit 1; }
0 entries of metadata: always the same bytes
1 entries of metadata: always the same bytes
3 entries of metadata: different bytes
SEEN
