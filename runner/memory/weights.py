"""The weights of a checkpoint, by component: how many bytes they take as a job wants them held."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from genrun.adapters.checkpoint.index import choose, chosen, components_of, index_of, is_model, read_mapping
from genrun.adapters.checkpoint.lora import file_of
from genrun.adapters.checkpoint.parts import GGUF, gguf_sizes
from genrun.adapters.pipeline.denoisers import COMPONENTS
from genrun.adapters.pipeline.load_options import ENCODERS, LoadOptions
from genrun.adapters.tensor_files import Tensor, tensors_in

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
FLOATS = re.compile(r"B?F\d+")
BLOCK = re.compile(r"^(.*?\.\d+)\.")
"""The name of a tensor in a block that is repeated, such as transformer_blocks.7."""

VAE = re.compile(r"first_stage_model\.|vae\.|encoder\.|decoder\.|(post_)?quant_conv\.")
ENCODER = re.compile(r"cond_stage_model\.|conditioner\.|text_encoders?\.|text_model\.")
"""Beginnings of the names of tensors in checkpoints that are one file; the others are the denoiser's."""

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
    """Return the models of a checkpoint, as their headers say.

    Raises:
        ValueError: the folder is no pipeline, or a file is missing or damaged.
        OSError: a file cannot be read.
    """
    kinds = {name: kind for name, (_, kind) in components_of(index_of(folder)).items()}
    added = holding.additions
    found = []
    if added.file is not None:
        found += _in_one_file(folder, Path(added.file), kinds, holding)
    for name, files in {} if added.file is not None else chosen(folder, holding.variant).items():
        if name not in added.components:
            config = read_mapping(folder / name / "config.json", f"{name}/config.json")
            found.append(Component(name, kinds[name], config, _sizes(name, files.paths, holding)))
    for name, path in added.components.items():
        if path is not None and is_model(name, kinds.get(name, "")):
            found.append(_part(name, Path(path), folder / name, kinds.get(name, ""), holding))
    found += [_part("controlnet", Path(path), None, "", holding) for path in added.controlnet]
    found += [_part("adapter", Path(path), None, "", holding) for path in added.t2i_adapter]
    return _with_layers(found, holding)


def _part(name: str, path: Path, beside: Path | None, kind: str, holding: LoadOptions) -> Component:
    """Return a component that lies elsewhere; `beside` has the configuration of one that is a file."""
    if path.is_file():
        config = {} if beside is None else read_mapping(beside / "config.json", f"{name}/config.json")
        return Component(name, kind, config, _sizes(name, [path], holding))
    config = read_mapping(path / "config.json", f"{path.name}/config.json")
    files = choose(path, "diffusers" if "_class_name" in config else "transformers", None)
    paths = [] if files is None else files.paths
    return Component(name, str(config.get("_class_name") or kind), config, _sizes(name, paths, holding))


def _in_one_file(folder: Path, file: Path, kinds: Mapping[str, str], holding: LoadOptions) -> list[Component]:
    """Return the components of a checkpoint in one file, told by the beginnings of its tensors' names."""
    denoiser = next((name for name in COMPONENTS if name in kinds), "")
    sizes: dict[str, dict[str, float]] = {name: {} for name in kinds if is_model(name, kinds[name])}
    for key, tensor in tensors_in(file).items():
        part = "vae" if VAE.match(key) else "text_encoder" if ENCODER.match(key) else denoiser
        sizes.setdefault(part, {})[key] = _held_bytes(part, key, tensor, holding)
    configs = {name: read_mapping(folder / name / "config.json", f"{name}/config.json") for name in sizes if name}
    return [Component(name, kinds[name], configs[name], each) for name, each in sizes.items() if name in kinds]


def _with_layers(found: Sequence[Component], holding: LoadOptions) -> list[Component]:
    """Add LoRAs and an IP-Adapter to the first denoiser, whose layers hold them."""
    added = holding.additions
    files = [(Path(each.path), each.weight_name) for each in added.loras]
    if added.ip_adapter is not None:
        files.append((Path(added.ip_adapter.path, added.ip_adapter.subfolder), added.ip_adapter.weight_name))
    extra: dict[str, float] = {}
    for number, (path, name) in enumerate(files):
        if path.exists():
            sizes = _sizes("", [file_of(path, path.name, name if path.is_dir() else None)], holding)
            extra |= {f"added_{number}.{key}": size for key, size in sizes.items()}
    first = next((each.name for each in found if each.is_denoiser), None)
    return [replace(each, sizes={**each.sizes, **extra}) if extra and each.name == first else each for each in found]


def _sizes(component: str, paths: Sequence[Path], holding: LoadOptions) -> dict[str, float]:
    """Return the bytes of each tensor in files as it is held; those in GGUF are held as they are."""
    sizes: dict[str, float] = {}
    for path in paths:
        if path.suffix == GGUF:
            sizes |= gguf_sizes(path)
        else:
            sizes |= {key: _held_bytes(component, key, tensor, holding) for key, tensor in tensors_in(path).items()}
    return sizes


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
