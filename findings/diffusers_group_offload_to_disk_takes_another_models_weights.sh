#!/usr/bin/env bash
# Group offloading of diffusers 0.42.1 to a folder where another model was offloaded computes with that model's weights.
#
# Packages: diffusers==0.42.1 torch==2.13.0 safetensors==0.8.0 (Python 3.11).
# `enable_group_offload(offload_to_disk_path=FOLDER)` names a group's file after its layers, `group_....safetensors`, and
# writes it only where there is none. A second model of the same architecture, offloaded to the same folder in this process or
# a later one, so takes the first one's weights from the disk: no error, and its output is the first model's to the last bit.
# It is what happens with two fine-tuned checkpoints, or with one before and after more training. One expects a model's own
# weights, or an error. It needs a folder for each model, which is emptied when its weights change.
#
# Output seen:
#   the second model's output before it is offloaded: its own
#   after it is offloaded to the first one's folder: the first model's
#   after it is offloaded to a folder of its own: its own
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  diffusers==0.42.1 torch==2.13.0 safetensors==0.8.0 accelerate==1.15.0 transformers==5.23.0
mkdir "$folder/shared" "$folder/own"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - "$folder" <<'PYTHON' 2>/dev/null >"$folder/seen"
import sys
from pathlib import Path

import torch
from diffusers import UNet2DModel
from torch import Tensor

folder, cpu = Path(sys.argv[1]), torch.device("cpu")


def model(seed: int) -> UNet2DModel:
    torch.manual_seed(seed)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    return UNet2DModel(sample_size=8, block_out_channels=(8, 16), norm_num_groups=4, layers_per_block=1, **blocks).eval()


def offload(each: UNet2DModel, where: str) -> None:
    each.enable_group_offload(
        onload_device=cpu,
        offload_device=cpu,
        offload_type="block_level",
        num_blocks_per_group=1,
        offload_to_disk_path=str(folder / where),
    )


x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    first, second, again = model(1), model(2), model(2)
    firsts, own = first(x, 10).sample, second(x, 10).sample

    def whose(output: Tensor) -> str:
        return "its own" if output.equal(own) else "the first model's" if output.equal(firsts) else "of neither"

    print(f"the second model's output before it is offloaded: {whose(second(x, 10).sample)}")
    offload(first, "shared")
    offload(second, "shared")
    print(f"after it is offloaded to the first one's folder: {whose(second(x, 10).sample)}")
    offload(again, "own")
    print(f"after it is offloaded to a folder of its own: {whose(again(x, 10).sample)}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN' || { echo "This is no longer so." >&2; exit 1; }
the second model's output before it is offloaded: its own
after it is offloaded to the first one's folder: the first model's
after it is offloaded to a folder of its own: its own
SEEN
