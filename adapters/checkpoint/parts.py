"""Parts that a job puts beside or in place of a checkpoint's: components, ControlNets, adapters; from headers alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from genrun.adapters.checkpoint import pipeline_classes as pipelines
from genrun.adapters.checkpoint.index import INDEX, CheckpointError, check_present, choose
from genrun.adapters.checkpoint.integrity import check_component, check_tokenizer
from genrun.adapters.checkpoint.kinds import (
    CONTROLNET,
    DENOISERS,
    EMBEDDING,
    IP_ADAPTER,
    LORA,
    T2I_ADAPTER,
    UNET,
    VAE,
    refuse_kind,
)
from genrun.adapters.checkpoint.lora import Shape, tensors_of

GGUF = ".gguf"
FILES = (".safetensors", GGUF)
"""Suffixes of components in one file."""

SHARED = re.compile(r"attn\d?\.(to_[qkv]|to_qkv)\.weight$")
"""Tensors of attention that a ControlNet has from the denoiser that it was made of, by the same names and shapes."""

KIND = re.compile(r"ControlNet|Adapter|Autoencoder|UNet|Transformer")
"""Words in names of diffusers' classes for models that cannot stand in for each other: one autoencoder may for another."""

TEXT_FAMILY = re.compile(r"CLIP|[UM]?M?T5|Llama|Gemma|Qwen")
"""Families of text encoders, none of which reads another's tokens."""

OLD_TRANSFORMER = "Transformer2DModel"
"""The class that older checkpoints name for one that diffusers has split up since."""

TOKENIZER = "tokenizer"
"""Prefix of the names of a pipeline's tokenizers."""

UNSINGLE = re.compile(r"text_encoder|tokenizer|scheduler|image_encoder|feature_extractor|processor")
"""Components that no loader of diffusers reads from one file."""

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
    taken = classes_taken(pipeline, component) if pipeline and component else []
    if path.is_dir():
        if component.startswith(TOKENIZER):
            kind = check_tokenizer(path).get("tokenizer_class")
        else:
            config = check_component(path, name, variant)
            architectures = config.get("architectures")
            kind = config.get("_class_name") or (
                architectures[0] if isinstance(architectures, list) and architectures else ""
            )
        if isinstance(kind, str) and taken and is_foreign(kind, taken):
            raise CheckpointError(
                f"{name} is a {kind}, and {pipeline} takes {' or '.join(taken)} there", "Name another"
            )
    elif path.suffix in FILES:
        if UNSINGLE.search(component):
            raise CheckpointError(f"{name} is a file, and diffusers reads no {component} from one", "Name its folder")
        tensors = list(check_gguf(path, name) if path.suffix == GGUF else tensors_of(path, name))
        check_kind(tensors, name, component, taken)
    else:
        check_present(path, name)
        raise CheckpointError(f"{name} is neither a folder nor one of {', '.join(FILES)}", "Convert it")


def is_foreign(kind: str, taken: Sequence[str]) -> bool:
    """Tell whether a class is of another kind, or another family, than all that a pipeline takes."""
    found, wanted = KIND.search(kind), [KIND.search(each) for each in taken]
    if found is None:
        family, families = TEXT_FAMILY.match(kind), [TEXT_FAMILY.match(each) for each in taken]
        texts = family is not None and all(each and each[0][-2:] != family[0][-2:] for each in families)
        return bool(kind) and (all(wanted) or texts)
    if found[0] == "Transformer" and all(each and each[0] == "Transformer" for each in wanted):
        return OLD_TRANSFORMER not in (kind, *taken) and kind not in taken
    return all((each[0] if each else None) != found[0] for each in wanted) and (all(wanted) or not any(wanted))


def check_kind(tensors: Sequence[str], name: str, component: str, taken: Sequence[str]) -> None:
    """Refuse a file of another kind than the component that it is named for. Raises CheckpointError."""
    what = " or ".join(taken) or f"a {component}"
    if "vae" in component:
        refuse_kind(tensors, name, what, (LORA, EMBEDDING, IP_ADAPTER, T2I_ADAPTER, CONTROLNET, UNET))
    elif taken and all("Transformer" in each for each in taken):
        refuse_kind(tensors, name, what, (*DENOISERS, UNET))
    elif "controlnet" in component:
        refuse_kind(tensors, name, what, (LORA, EMBEDDING, IP_ADAPTER, T2I_ADAPTER, VAE))
    else:
        refuse_kind(tensors, name, what)


def check_gguf(path: Path, name: str) -> Mapping[str, float]:
    """Check that a GGUF file is one to its end, and return the bytes of each of its tensors.

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
    return sizes


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
    _require_folder(folder, name, "ControlNet")
    kind = str(check_component(folder, "ControlNet", variant).get("_class_name"))
    taken = classes_taken(pipeline, "controlnet")
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
    _require_folder(folder, name, "T2I-Adapter")
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


def _require_folder(path: Path, name: str, what: str) -> None:
    """Refuse a file, and the folder of a whole pipeline, for that of a component. Raises CheckpointError."""
    if path.is_file():
        raise CheckpointError(f"{name} is a file", f"Name the folder of the {what}, with its config.json")
    if (path / INDEX).is_file():
        raise CheckpointError(f"{name} is the folder of a pipeline", f"Name that of the {what} in it")


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


def classes_taken(pipeline: str, parameter: str) -> list[str]:
    """List the classes of models in the annotation of an argument of a pipeline's `__init__`."""
    text = pipelines.annotation_of(pipeline, parameter)
    names = (
        {node.id for node in ast.walk(ast.parse(text, mode="eval")) if isinstance(node, ast.Name)} if text else set()
    )
    return sorted(name for name in names if name[:1].isupper() and name not in ("Union", "List", "Optional", "Tuple"))
