"""The weights of a checkpoint, by component: how many bytes they take as a job wants them held."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from genrun.adapters.checkpoint.index import components_of, index_of, read_mapping
from genrun.adapters.checkpoint.variants import chosen
from genrun.adapters.pipeline.denoisers import COMPONENTS
from genrun.adapters.pipeline.load_options import ENCODERS, LoadOptions
from genrun.adapters.tensor_files import Tensor, tensors_in

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
FLOATS = re.compile(r"B?F\d+")
BLOCK = re.compile(r"^(.*?\.\d+)\.")
"""The name of a tensor in a block that is repeated, such as transformer_blocks.7."""

BITS = {
    "bitsandbytes_4bit": 4.5,
    "bitsandbytes_8bit": 8,
    "torchao": 8,
    "quanto": 8,
}
"""Bits of a quantised weight; four-bit ones have a scale of 32 bits for each 64 of them."""


@dataclass(frozen=True)
class Component:
    """A model of a pipeline.

    Attributes:
        name: in the pipeline, such as transformer.
        kind: its class.
        config: its config.json.
        sizes: tensor -> bytes as they are held.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    sizes: Mapping[str, float] = field(repr=False)

    @property
    def is_encoder(self) -> bool:
        """True for a text encoder."""
        return self.name.startswith(ENCODERS)

    @property
    def is_denoiser(self) -> bool:
        """True for a model that is evaluated at every step."""
        return self.name in COMPONENTS

    @cached_property
    def total_bytes(self) -> int:
        """All weights."""
        return math.ceil(sum(self.sizes.values()))

    @cached_property
    def group_bytes(self) -> int:
        """Bytes that group offloading keeps on the device: the weights outside blocks, and two blocks, one in transfer."""
        blocks: Counter[str] = Counter()
        for name, size in self.sizes.items():
            found = BLOCK.match(name)
            blocks[found[1] if found else ""] += math.ceil(size)
        rest = blocks.pop("", 0)
        return rest + sum(size for _, size in blocks.most_common(2))

    @cached_property
    def layer_bytes(self) -> int:
        """The largest layer: what sequential offloading keeps on the device."""
        layers: Counter[str] = Counter()
        for name, size in self.sizes.items():
            layers[name.rpartition(".")[0]] += math.ceil(size)
        return max(layers.values(), default=0)


def components(folder: Path, holding: LoadOptions) -> list[Component]:
    """The models of a checkpoint, as their headers say.

    Raises:
        ValueError: the folder is no pipeline, or a file is missing or damaged.
        OSError: a file cannot be read.
    """
    kinds = {name: kind for name, (_, kind) in components_of(index_of(folder)).items()}
    found = []
    for name, files in chosen(folder, holding.variant).items():
        config = read_mapping(folder / name / "config.json", f"{name}/config.json")
        tensors = {key: each for path in files.paths for key, each in tensors_in(path).items()}
        sizes = {key: _held_bytes(name, key, tensor, holding) for key, tensor in tensors.items()}
        found.append(Component(name, kinds[name], config, sizes))
    return found


def _held_bytes(component: str, name: str, tensor: Tensor, holding: LoadOptions) -> float:
    if not FLOATS.fullmatch(tensor.dtype):
        return tensor.size_bytes
    if _is_quantized(component, name, tensor, holding):
        return tensor.count * _bits(holding.quantization or {}) / 8
    return tensor.count * BYTES[holding.dtype_of(component)]


def _is_quantized(component: str, name: str, tensor: Tensor, holding: LoadOptions) -> bool:
    """Linear layers are: matrices that are no embedding. Without a list of components, all but the VAE's."""
    if holding.quantization is None or len(tensor.shape) != 2 or "embed" in name.lower():
        return False
    wanted = holding.quantization.get("components")
    return component in wanted if wanted else component != "vae"


def _bits(quantization: Mapping[str, Any]) -> float:
    said = f"{quantization.get('quant_type', '')}{quantization.get('weights_dtype', '')}".lower()
    return 4.5 if "int4" in said else 2.5 if "int2" in said else BITS[str(quantization["backend"])]
