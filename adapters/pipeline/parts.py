"""Load what a job puts beside or in place of a checkpoint's components, by diffusers' own loaders, LoRAs among it.

A LoRA is put on a loaded pipeline and taken off again: the weights below are never written to.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from genrun.adapters.checkpoint.index import CheckpointError, components_of, read_mapping
from genrun.adapters.checkpoint.integrity import check_component, check_tokenizer
from genrun.adapters.checkpoint.lora import Shape, check_fit, file_of, is_of_encoders, on_component, tensors_of
from genrun.adapters.checkpoint.parts import GGUF, TOKENIZER, check_part
from genrun.adapters.checkpoint.pipeline_classes import can_lack, required_components
from genrun.adapters.checkpoint.strict import LoadError, explained
from genrun.adapters.pipeline.additions import IpAdapter, Lora
from genrun.adapters.pipeline.denoisers import COMPONENTS
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
    there = components_of(index)
    for name in required_components(plain.__name__):
        # Saved without it: diffusers wants to be told so again.
        if name not in there and name not in found and name not in without and can_lack(plain.__name__, name, there):
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
    if name.startswith(TOKENIZER):
        from transformers import AutoTokenizer

        check_tokenizer(folder)
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
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


_GRADIENTS: WeakKeyDictionary[Any, dict[str, bool]] = WeakKeyDictionary()
"""Pipeline with LoRAs -> parameter -> whether it had gradients before them."""


def put_loras(pipe: Any, loras: Sequence[Lora]) -> None:
    """Have a pipeline run with these LoRAs and no others; without any, its modules are those that it was loaded with.

    Raises:
        LoadError: a LoRA is not there, not whole, or not of this model. The pipeline is left without LoRAs.
    """
    _take_off(pipe)
    if loras:
        _GRADIENTS[pipe] = {parameter: value.requires_grad for parameter, value in _parameters(pipe)}
    names = [f"lora_{number}" for number in range(len(loras))]
    try:
        for name, lora in zip(names, loras, strict=True):
            with explained(lora.path):
                _load(pipe, name, lora)
    except BaseException:
        _take_off(pipe)
        raise
    if loras:
        pipe.set_adapters(names, [lora.weight for lora in loras])


def _take_off(pipe: Any) -> None:
    if has_loras(pipe):
        pipe.unload_lora_weights()
    # peft switches the gradients of all other weights off, and some kernels round otherwise without, under no_grad too.
    flags = _GRADIENTS.pop(pipe, {})
    for name, parameter in _parameters(pipe):
        if name in flags:
            parameter.requires_grad_(flags[name])


def _parameters(pipe: Any) -> Iterator[tuple[str, nn.Parameter]]:
    for name, part in pipe.components.items():
        for path, parameter in part.named_parameters() if isinstance(part, nn.Module) else ():
            yield f"{name}.{path}", parameter


def has_loras(pipe: Any) -> bool:
    """Tell whether a pipeline has LoRAs on any component."""
    # Of one that failed halfway, an empty configuration is left, and layers that are wrapped.
    return any(isinstance(part, nn.Module) and "peft_config" in vars(part) for part in pipe.components.values())


def changes_encoders(lora: Lora) -> bool:
    """Tell whether a LoRA changes text encoders, so that prompts have other encodings with it. Raises LoadError."""
    with explained(lora.path):
        file = local_file(lora)
        return is_of_encoders(tensors_of(file, file.name))


def local_file(lora: Lora) -> Path:
    """Return the file of a LoRA, got from the hub where it is named by a hub id."""
    path = Path(lora.path)
    if not path.exists() and not path.is_symlink():
        path = _downloaded(lora)
    return file_of(path, lora.path, lora.weight_name if path.is_dir() else None)


def _downloaded(lora: Lora) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(lora.path, allow_patterns=lora.weight_name or "*.safetensors"))


def _load(pipe: Any, name: str, lora: Lora) -> None:
    if not hasattr(pipe, "load_lora_weights"):
        raise LoadError(f"{lora.path}: {type(pipe).__name__} takes no LoRAs", "Leave it out of the job.")
    from safetensors.torch import load_file

    from genrun.adapters.pipeline.lora_trace import check_filled, check_taken, left_out, refuse

    file = local_file(lora)
    ways: dict[str, Any] = {"use_safetensors": True}
    if lora.component is not None:
        ways[f"load_into_{lora.component}"] = True
    states: list[Mapping[str, Any]] = []
    convert = pipe.lora_state_dict

    def converted(source: Any, **more: Any) -> Any:
        found = convert(source, **more)
        # With it may come scales and metadata.
        state: Mapping[str, Any] = found[0] if isinstance(found, tuple) else found
        _check_finite(state)
        models = on_component(_models(pipe), lora.component)
        check_fit({key: tuple(value.shape) for key, value in state.items()}, models, lora.path)
        if not lora.partial:
            tensors = load_file(file)
            lost = left_out(tensors, lambda traced: convert(traced, **more))
            if lost:
                refuse(len(lost), lost[0], len(tensors))
        states.append(dict(state))
        return found

    # It warns of every component that a LoRA has nothing for; what does not fit is told above.
    log = logging.getLogger("diffusers.loaders")
    level = log.level
    log.setLevel(logging.ERROR)
    # Checked between its conversion and the model: each class of pipelines converts with arguments of its own.
    pipe.lora_state_dict = converted
    try:
        with warnings.catch_warnings():
            # Of peft, from the second LoRA on; there is to be more than one.
            warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute", category=UserWarning)
            pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name, **ways)
    finally:
        del pipe.lora_state_dict
        log.setLevel(level)
    there = {key for key, part in pipe.components.items() if name in (getattr(part, "peft_config", None) or {})}
    if lora.component is not None and lora.component not in there:
        message = f"{type(pipe).__name__} puts no LoRAs on {lora.component}"
        raise CheckpointError(message, "Leave `component` out of the LoRA")
    if not there:
        message = f"{lora.path} changes nothing of {type(pipe).__name__}"
        raise CheckpointError(message, "It is of another model: name a LoRA that was trained on this one")
    check_filled(pipe.components, name)
    if not lora.partial:
        for state in states:
            check_taken(state, pipe.components, name)


def _check_finite(state: Mapping[str, Any]) -> None:
    """Refuse NaN and infinity, which no header shows, before anything is sampled. Raises CheckpointError."""
    for key, value in state.items():
        bad = int((~value.isfinite()).sum()) if isinstance(value, Tensor) else 0
        if bad:
            message = f"{bad:,} of {value.numel():,} values of {key!r} are NaN or infinite"
            raise CheckpointError(message, "Its training diverged, or it is damaged: get it again, or leave it out")


def _models(pipe: Any) -> dict[str, dict[str, Shape]]:
    """Return the shapes in the denoisers; those that are packed by quantisation count as not known."""
    models = {name: getattr(pipe, name, None) for name in COMPONENTS}
    return {name: _shapes(model) for name, model in models.items() if isinstance(model, nn.Module)}


def _shapes(model: nn.Module) -> dict[str, Shape]:
    is_packed = getattr(model, "hf_quantizer", None) is not None
    # Other LoRAs that are on it already have put their layers into others.
    return {
        key.replace(".base_layer.", "."): (0,) if is_packed else tuple(value.shape)
        for key, value in model.state_dict().items()
    }
