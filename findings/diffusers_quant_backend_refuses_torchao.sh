#!/usr/bin/env bash
# PipelineQuantizationConfig of diffusers 0.42.1 refuses `quant_backend="torchao"`, "quanto" and "gguf" with transformers 5.23.
#
# Packages: torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 (Python 3.11).
# A backend by name is accepted only where the two libraries' config classes take arguments of the same names, whatever is
# given, as those of bitsandbytes do. transformers' TorchAoConfig has two more, and its other classes have other ones. The
# ValueError points to `quant_mapping`, which works. One expects arguments that both classes have, such as torchao's
# `quant_type`, to be enough.
#
# Output seen:
#   bitsandbytes_8bit: accepted
#   torchao: ValueError (signatures don't match); only transformers has include_input_output_embeddings, untie_embedding_weights
#   quanto: ValueError (signatures don't match); only transformers has activations, weights
#   gguf: ValueError (signatures don't match); only transformers has dequantize, gguf_file, kwargs
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  torch==2.13.0 diffusers==0.42.1 transformers==5.23.0 accelerate==1.15.0 numpy==2.4.6
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null >"$folder/seen"
from inspect import signature

from diffusers.quantizers import PipelineQuantizationConfig
from diffusers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as of_diffusers
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING as of_transformers

arguments = {
    "bitsandbytes_8bit": {"load_in_8bit": True},
    "torchao": {"quant_type": "int8_weight_only"},
    "quanto": {"weights_dtype": "int8"},
    "gguf": {"compute_dtype": "bfloat16"},
}
for backend, given in arguments.items():
    try:
        PipelineQuantizationConfig(quant_backend=backend, quant_kwargs=given)
        print(f"{backend}: accepted")
    except ValueError as error:
        assert "don't match" in str(error), error
        theirs, own = (signature(found[backend].__init__).parameters for found in (of_transformers, of_diffusers))
        more = ", ".join(sorted(set(theirs) - set(own)))
        print(f"{backend}: ValueError (signatures don't match); only transformers has {more}")
PYTHON
cat "$folder/seen"
diff "$folder/seen" - <<'SEEN' || { echo "This is no longer so." >&2; exit 1; }
bitsandbytes_8bit: accepted
torchao: ValueError (signatures don't match); only transformers has include_input_output_embeddings, untie_embedding_weights
quanto: ValueError (signatures don't match); only transformers has activations, weights
gguf: ValueError (signatures don't match); only transformers has dequantize, gguf_file, kwargs
SEEN
