"""Parts that a job puts beside or in place of a checkpoint's: components, ControlNets, adapters; from headers alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from genrun.adapters.checkpoint import pipeline_classes as pipelines
from genrun.adapters.checkpoint.index import CheckpointError, check_present
from genrun.adapters.checkpoint.integrity import check_component
from genrun.adapters.checkpoint.lora import LAYER, Shape, tensors_of
from genrun.adapters.checkpoint.variants import choose

GGUF = ".gguf"
FILES = (".safetensors", GGUF)
"""Suffixes of components in one file."""

SHARED = re.compile(r"attn\d?\.(to_[qkv]|to_qkv)\.weight$")
"""Tensors of attention that a ControlNet has from the denoiser that it was made of, by the same names and shapes."""

KIND = re.compile(r"ControlNet|Adapter|Autoencoder|UNet|Transformer")
"""Words in names of diffusers' classes for models that cannot stand in for each other: one autoencoder may for another."""

CROSS = re.compile(r"attn2\.to_k\.weight$")
OTHER_BASE = "Name one that was trained for this checkpoint's model"


def shapes_in(folder: Path, library: str = "diffusers", variant: str | None = None) -> dict[str, Shape]:
    """Read the shapes of a component's tensors from the headers of its files. Raises CheckpointError."""
    files = choose(folder, library, variant)
    paths = [] if files is None else files.paths
    return {
        name: tensor.shape for path in paths for name, tensor in tensors_of(path, f"{folder.name}/{path.name}").items()
    }


def check_part(
    path: Path, name: str, variant: str | None = None, pipeline: str | None = None, component: str = ""
) -> None:
    """Check a component in a folder or in one file.

    Args:
        path: of the folder or file.
        name: what messages call it.
        variant: of the weights.
        pipeline: class of the pipeline that it is put into, or None.
        component: which of the pipeline's it is to be.

    Raises:
        CheckpointError: it is not there, not whole, no format that is read, or of another kind than the component.
        OSError: a file cannot be read.
    """
    if path.is_dir():
        kind = str(check_component(path, name, variant).get("_class_name"))
        taken = _annotation(pipeline, component) if pipeline and component else []
        found, wanted = KIND.search(kind), [KIND.search(each) for each in taken]
        if found and wanted and all(each and each[0] != found[0] for each in wanted):
            raise CheckpointError(
                f"{name} is a {kind}, and {pipeline} takes {' or '.join(taken)} there", "Name another"
            )
    elif path.suffix == GGUF:
        check_gguf(path, name)
    elif path.suffix == ".safetensors":
        tensors = tensors_of(path, name)
        if any(map(LAYER.fullmatch, tensors)):
            raise CheckpointError(f"{name} holds layers of a LoRA, and no component", "Name it under loras")
    else:
        check_present(path, name)
        raise CheckpointError(f"{name} is neither a folder nor one of {', '.join(FILES)}", "Convert it")


def check_gguf(path: Path, name: str) -> None:
    """Check that a GGUF file is one to its end.

    Raises:
        CheckpointError: it is not, or the package that reads it is not installed.
        OSError: it cannot be read.
    """
    check_present(path, name)
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise CheckpointError(f"{name} is no GGUF file")
    if find_spec("gguf") is None:
        raise CheckpointError(f"{name} needs the package gguf", "Install it: pip install 'genrun[gguf]'")
    try:
        sizes = gguf_sizes(path)
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{name} is damaged or was not downloaded to its end: {str(error)[:100]}") from error
    if not sizes:
        raise CheckpointError(f"{name} holds no tensors")


def gguf_sizes(path: Path) -> dict[str, float]:
    """Return the bytes of each tensor in a GGUF file. Raises ValueError and its like where it is damaged."""
    reader: Any = import_module("gguf").GGUFReader(path)
    return {tensor.name: float(tensor.n_bytes) for tensor in reader.tensors}


def check_controlnet(folder: Path, name: str, pipeline: str, base: Mapping[str, Shape], variant: str | None) -> None:
    """Check that a ControlNet is whole, of the class that a pipeline takes, and made of its denoiser.

    Args:
        folder: of the ControlNet.
        name: what messages call it.
        pipeline: class of the pipeline with a ControlNet.
        base: tensor -> shape of the checkpoint's denoiser; empty where they are not known.
        variant: of the weights.

    Raises:
        CheckpointError, OSError: as `check_component`; or it is for another model.
    """
    kind = str(check_component(folder, "ControlNet", variant).get("_class_name"))
    taken = _annotation(pipeline, "controlnet")
    if taken and kind not in taken:
        raise CheckpointError(f"{name} is a {kind}, and {pipeline} takes {' or '.join(taken)}", OTHER_BASE)
    for tensor, shape in shapes_in(folder).items():
        wanted = base.get(tensor)
        if SHARED.search(tensor) and wanted is not None and wanted != shape:
            message = (
                f"{name} is for another model: its {tensor!r} is {list(shape)}, and the checkpoint's {list(wanted)}"
            )
            raise CheckpointError(message, OTHER_BASE)


def modes_of(config: Mapping[str, Any]) -> int:
    """Return how many kinds of control a ControlNet knows, by its configuration; 0 for one that is of one kind."""
    found = config.get("num_control_type") or config.get("num_mode")
    return found if type(found) is int else 0


def check_t2i_adapter(folder: Path, name: str, pipeline: str, denoiser: Mapping[str, Any]) -> None:
    """Check that a T2I-Adapter is whole and as wide as a pipeline's UNet, by both configurations.

    Raises:
        CheckpointError, OSError: as `check_component`; or it is for another model.
    """
    config = check_component(folder, "T2I-Adapter")
    if config.get("_class_name") != "T2IAdapter":
        raise CheckpointError(f"{name} is a {config.get('_class_name')}, and {pipeline} takes T2IAdapter", OTHER_BASE)
    found, wanted = config.get("channels"), denoiser.get("block_out_channels")
    is_xl = str(config.get("adapter_type", "")).endswith("_xl")
    pairs = zip(found, wanted, strict=False) if isinstance(found, list) and isinstance(wanted, list) else ()
    differs = any(one != other for one, other in pairs)
    if differs or is_xl != ("XL" in pipeline):
        kind = f"{config.get('adapter_type')} of channels {found}"
        raise CheckpointError(f"{name} is for another model: {kind}, and the UNet's are {wanted}", OTHER_BASE)


def check_ip_adapter(path: Path, name: str, base: Mapping[str, Shape]) -> None:
    """Check that a file is an IP-Adapter that fits the cross attention of a UNet.

    Args:
        path: the file.
        name: what messages call it.
        base: tensor -> shape of the UNet; empty for other denoisers.

    Raises:
        CheckpointError: it is none, or for another model.
    """
    tensors = tensors_of(path, name)
    keys = {tensor: each.shape for tensor, each in tensors.items() if tensor.startswith("ip_adapter.")}
    if not keys or not any(tensor.startswith("image_proj.") for tensor in tensors):
        first = next(iter(tensors))
        raise CheckpointError(f"{name} is no IP-Adapter: it holds {first!r}, and no 'image_proj' and 'ip_adapter'", "")
    wanted = {shape for tensor, shape in base.items() if CROSS.search(tensor)}
    wrong = [shape for tensor, shape in keys.items() if tensor.endswith("to_k_ip.weight") and shape not in wanted]
    if wanted and wrong:
        have = f"{list(wrong[0])}, and the UNet's cross attention has {sorted(map(list, wanted))[0]}"
        raise CheckpointError(f"{name} is for another model: it has a key projection of {have}", OTHER_BASE)


def _annotation(pipeline: str, parameter: str) -> list[str]:
    """List the classes of models in the annotation of an argument of a pipeline's `__init__`."""
    text = pipelines.annotation_of(pipeline, parameter)
    names = (
        {node.id for node in ast.walk(ast.parse(text, mode="eval")) if isinstance(node, ast.Name)} if text else set()
    )
    return sorted(name for name in names if name[:1].isupper() and name not in ("Union", "List", "Optional", "Tuple"))
