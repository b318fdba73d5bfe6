"""Load what a job puts beside or in place of a checkpoint's components, by diffusers' own loaders."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genrun.adapters.checkpoint.index import CheckpointError, read_mapping
from genrun.adapters.checkpoint.integrity import check_component
from genrun.adapters.checkpoint.load_errors import LoadError, explained
from genrun.adapters.checkpoint.parts import GGUF, check_part
from genrun.adapters.checkpoint.pipeline_classes import required_components
from genrun.adapters.pipeline.additions import IpAdapter
from genrun.adapters.pipeline.load_options import LoadOptions


def load_parts(
    plain: Any,
    source: str,
    index: Mapping[str, Any],
    revision: str | None,
    load_options: LoadOptions,
    without: Collection[str],
) -> dict[str, Any]:
    """Load ControlNets, T2I-Adapters and components in place of the checkpoint's, by the names that a pipeline has for them.

    Args:
        plain: class of the pipeline.
        source: the checkpoint's folder, file or hub id.
        index: its model_index.json.
        revision: of a hub id.
        load_options: how weights are held, and what is added.
        without: components that are not loaded.

    Raises:
        CheckpointError, LoadError: a part is not there, not whole, or of a format that is not read.
    """
    added = load_options.additions
    found: dict[str, Any] = {}
    for name, path in added.components.items():
        if name in without:
            continue
        if path is None:
            found[name] = None
        elif Path(path).is_file():
            found[name] = _from_file(name, Path(path), source, index, revision, load_options)
        else:
            found[name] = _from_folder(name, path, index, load_options)
    for name, paths in (("controlnet", added.controlnet), ("adapter", added.t2i_adapter)):
        if paths and name not in without:
            parts = [_from_folder(name, path, {}, load_options) for path in paths]
            # A list of one is one that the pipeline would want lists of pictures for.
            found[name] = parts[0] if len(parts) == 1 else parts
    for name in required_components(plain.__name__):
        # A class for another task may know components that this checkpoint has no use for.
        if name not in index and name not in found and name in getattr(plain, "_optional_components", ()):
            found[name] = None
    return found


def kind_of_first(paths: Sequence[str]) -> str | None:
    """Return the class of the first of some ControlNets; None for none. Raises CheckpointError."""
    if not paths:
        return None
    kind = read_mapping(_folder_of(paths[0]) / "config.json", f"{paths[0]}/config.json").get("_class_name")
    return kind if isinstance(kind, str) else None


def add_ip_adapter(pipe: Any, ip_adapter: IpAdapter | None) -> None:
    """Put an IP-Adapter on a pipeline, and its encoder of pictures into it where that has none.

    Raises:
        LoadError: the pipeline takes none.
    """
    if ip_adapter is None:
        return
    if not hasattr(pipe, "load_ip_adapter"):
        raise LoadError(f"{ip_adapter.path}: {type(pipe).__name__} takes no IP-Adapters", "Leave it out of the job.")
    ways: dict[str, Any] = {"subfolder": ip_adapter.subfolder, "weight_name": ip_adapter.weight_name}
    if ip_adapter.image_encoder is not None:
        ways["image_encoder_folder"] = ip_adapter.image_encoder
    elif getattr(pipe, "image_encoder", None) is not None:
        ways["image_encoder_folder"] = None
    pipe.load_ip_adapter(ip_adapter.path, local_files_only=Path(ip_adapter.path).is_dir() or None, **ways)
    pipe.set_ip_adapter_scale(ip_adapter.scale)


def refuse_holes(model: nn.Module, name: str) -> None:
    """Refuse a model of which tensors were not in its file: diffusers leaves them without memory, and says nothing.

    Raises:
        CheckpointError: there are some; the first is named.
    """
    missing = [tensor for tensor, value in model.state_dict().items() if value.is_meta]
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        raise CheckpointError(f"{name} lacks the tensor {missing[0]!r}{more}")


def _from_folder(name: str, path: str, index: Mapping[str, Any], load_options: LoadOptions) -> Any:
    """Load a component from a folder or hub id, of the class that its configuration says, or the checkpoint's index."""
    folder = _folder_of(path)
    if folder == Path(path):
        check_component(folder, name, load_options.variant)
    config = read_mapping(folder / "config.json", f"{folder.name}/config.json")
    kind = _class(config.get("_class_name"), index.get(name), path)
    dtype = getattr(torch, load_options.dtype_of(name))
    return kind.from_pretrained(str(folder), use_safetensors=True, dtype=dtype).eval()


def _folder_of(path: str) -> Path:
    """Return a folder, or that of a hub id in the hub's cache, where it is put if need be."""
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(path, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"]))


def _from_file(
    name: str, path: Path, source: str, index: Mapping[str, Any], revision: str | None, load_options: LoadOptions
) -> Any:
    """Load a component from one file, with the configuration that the checkpoint has for it."""
    from diffusers.quantizers.quantization_config import GGUFQuantizationConfig

    check_part(path, str(path))
    kind = _class(None, index.get(name), str(path))
    if not hasattr(kind, "from_single_file"):
        raise LoadError(f"{path}: diffusers reads no {kind.__name__} from one file", "Name its folder.")
    dtype = getattr(torch, load_options.dtype_of(name))
    ways: dict[str, Any] = {"config": load_options.additions.config or source, "subfolder": name, "dtype": dtype}
    if path.suffix == GGUF:
        ways["quantization_config"] = GGUFQuantizationConfig(compute_dtype=dtype)
    if revision is not None:
        ways["config_revision"] = revision
    with explained(str(path)):
        model = kind.from_single_file(str(path), local_files_only=Path(ways["config"]).is_dir(), **ways).eval()
    refuse_holes(model, str(path))
    return model


def _class(own: Any, entry: Any, path: str) -> Any:
    """Return the class that a configuration names, or the one that an index has."""
    import diffusers
    import transformers

    library, name = (diffusers, own) if isinstance(own, str) else (diffusers, None)
    if name is None and isinstance(entry, list) and len(entry) == 2:
        library, name = (transformers if entry[0] == "transformers" else diffusers), entry[1]
    found = getattr(library, name, None) if isinstance(name, str) and name.isidentifier() else None
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        raise LoadError(f"{path}: is of no class of diffusers or transformers ({name})", "Name another.")
    return found
