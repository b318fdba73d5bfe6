"""Put LoRAs on a loaded pipeline, and take them off again: the weights below are never written to."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from genrun.adapters.checkpoint.index import CheckpointError
from genrun.adapters.checkpoint.load_errors import LoadError, explained
from genrun.adapters.checkpoint.lora import Shape, check_fit, file_of, is_of_encoders, tensors_of
from genrun.adapters.pipeline.additions import Lora
from genrun.adapters.pipeline.denoisers import COMPONENTS

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
    file = local_file(lora)
    found = pipe.lora_state_dict(str(file.parent), weight_name=file.name, use_safetensors=True)
    # With it come scales and metadata, of which load_lora_weights reads its own.
    state: Mapping[str, Any] = found[0] if isinstance(found, tuple) else found
    _check_finite(state)
    check_fit({key: tuple(value.shape) for key, value in state.items()}, _models(pipe), lora.path)
    # It warns of every component that a LoRA has nothing for; what does not fit is told above.
    log = logging.getLogger("diffusers.loaders")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Of peft, from the second LoRA on; there is to be more than one.
            warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute", category=UserWarning)
            pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=name, use_safetensors=True)
    finally:
        log.setLevel(level)
    if not any(name in (getattr(part, "peft_config", None) or {}) for part in pipe.components.values()):
        message = f"{lora.path} changes nothing of {type(pipe).__name__}"
        raise CheckpointError(message, "It is of another model: name a LoRA that was trained on this one")


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
