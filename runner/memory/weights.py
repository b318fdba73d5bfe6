"""The weights of a checkpoint, by component: how many bytes they take as a job wants them held."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from genrun.adapters.holding import DENOISERS, ENCODERS, Holding
from genrun.adapters.weights import NO_WEIGHTS, Tensor, components_of, header_of, index_of

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
STANDARD = ("diffusion_pytorch_model.safetensors", "model.safetensors")
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
    """One model of a pipeline.

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
        """Whether it encodes prompts."""
        return self.name.startswith(ENCODERS)

    @property
    def is_denoiser(self) -> bool:
        """Whether it is evaluated at every step."""
        return self.name in DENOISERS

    @cached_property
    def total_bytes(self) -> int:
        """All weights."""
        return math.ceil(sum(self.sizes.values()))

    @cached_property
    def group_bytes(self) -> int:
        """What group offloading keeps on the device: all that is in no block, and two blocks, one of them in transfer."""
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


def components(folder: Path, holding: Holding) -> list[Component]:
    """The models of a checkpoint, as their headers say.

    Raises:
        ValueError: the folder is no pipeline, or a file is missing or damaged.
        OSError: a file cannot be read.
    """
    index = components_of(index_of(folder))
    found = []
    for name, (_, kind) in index.items():
        config = folder / name / "config.json"
        if name.startswith(NO_WEIGHTS) or not config.is_file():
            continue
        tensors = {key: each for path in _files(folder / name) for key, each in header_of(path).items()}
        sizes = {key: _held_bytes(name, key, tensor, holding) for key, tensor in tensors.items()}
        found.append(Component(name, kind, json.loads(config.read_bytes()), sizes))
    return found


def _files(folder: Path) -> list[Path]:
    """The weights files that are loaded: those of an index, or the one of the usual name; other variants are not."""
    for index in sorted(folder.glob("*.safetensors.index.json")):
        if index.name.count(".") == 3:
            return [folder / name for name in sorted(set(json.loads(index.read_bytes())["weight_map"].values()))]
    standard = [folder / name for name in STANDARD if (folder / name).is_file()]
    return standard or sorted(folder.glob("*.safetensors"))


def _held_bytes(component: str, name: str, tensor: Tensor, holding: Holding) -> float:
    if not FLOATS.fullmatch(tensor.dtype):
        return tensor.size_bytes
    if _is_quantized(component, name, tensor, holding):
        return tensor.count * _bits(holding.quantization or {}) / 8
    return tensor.count * BYTES[holding.dtype_of(component)]


def _is_quantized(component: str, name: str, tensor: Tensor, holding: Holding) -> bool:
    """Linear layers are: matrices that are no embedding. Without a list of components, all but the VAE's."""
    if holding.quantization is None or len(tensor.shape) != 2 or "embed" in name.lower():
        return False
    wanted = holding.quantization.get("components")
    return component in wanted if wanted else component != "vae"


def _bits(quantization: Mapping[str, Any]) -> float:
    said = f"{quantization.get('quant_type', '')}{quantization.get('weights_dtype', '')}".lower()
    return 4.5 if "int4" in said else 2.5 if "int2" in said else BITS[str(quantization["backend"])]
