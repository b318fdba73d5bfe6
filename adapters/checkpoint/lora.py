"""Check LoRAs against the model that they are for, by the headers of both: layers, shapes and ranks."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from genrun.adapters.checkpoint.index import CheckpointError, check_present
from genrun.adapters.tensor_files import Tensor, tensors_in

Shape = tuple[int, ...]

FILE = "pytorch_lora_weights.safetensors"
"""The file of LoRAs that diffusers and its training scripts write."""

SUFFIX = ".safetensors"
LAYER = re.compile(
    r"(?P<module>.+?)[._](lora_linear_layer\.|lora\.|lora_)(?P<side>A|B|down|up)(\.\w+)?\.weight", re.ASCII
)
"""Names of the two matrices of a layer in the formats of peft, diffusers and kohya."""

OTHER_KINDS = re.compile(r"\.?(lokr_|hada_|lora_mid|diff_b?$|dora_scale)")
"""Tensors of kin of LoRAs, which diffusers may know or not: it says so when it loads them."""

ENCODERS = ("text_encoder", "lora_te", "te1.", "te2.", "text_encoders.")
"""Prefixes of the names of layers that are for text encoders."""

UNDERSCORED = "lora_unet_"
"""Prefix of the format of kohya, which has underscores in place of dots."""

WIDENED = re.compile(r"embed|img_in|conv_in|patch")
"""Modules that diffusers widens itself, for LoRAs of controls that are fed with more channels."""

OF_ANOTHER = "It is of another model: name a LoRA that was trained on this one"


@dataclass(frozen=True)
class Layer:
    """The two matrices of a LoRA on one layer: down is (rank, inputs, ...), up is (outputs, rank, ...)."""

    down: Shape
    up: Shape


def file_of(path: Path, name: str, weight_name: str | None = None) -> Path:
    """Find the file of a LoRA: the path itself, or the one in a folder that is named, usual or alone.

    Args:
        path: a file or a folder.
        name: what messages call it.
        weight_name: of the file in the folder.

    Raises:
        CheckpointError: there is none, several, or no safetensors.
    """
    if path.is_dir():
        there = sorted(each.name for each in path.glob(f"*{SUFFIX}"))
        wanted = weight_name or (FILE if FILE in there else there[0] if len(there) == 1 else None)
        if wanted is None and there:
            raise CheckpointError(f"{name} holds several files: {', '.join(there[:5])}", "Say which: weight_name: FILE")
        if wanted is None:
            raise CheckpointError(f"{name} holds no {SUFFIX} file", "Name the file itself, or its folder")
        path, name = path / wanted, f"{name}/{wanted}"
    elif weight_name is not None:
        raise CheckpointError(f"{name} is no folder, so it holds no {weight_name!r}", "Leave weight_name out")
    check_present(path, name)
    if path.suffix != SUFFIX:
        raise CheckpointError(f"{name} is no {SUFFIX} file: others can run code when they are read", "Convert it")
    return path


def tensors_of(path: Path, name: str) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file from its header.

    Raises:
        CheckpointError: it is not there, no safetensors, cut off, or empty.
    """
    check_present(path, name)
    try:
        found = tensors_in(path)
    except OSError as error:
        raise CheckpointError(f"{name} cannot be read: {error.strerror or error}", "Make it readable") from error
    except ValueError as error:
        raise CheckpointError(f"{name}: {error}") from error
    if not found:
        raise CheckpointError(f"{name} holds no tensors")
    return found


def is_of_encoders(names: Collection[str]) -> bool:
    """Tell whether a LoRA changes text encoders, by the names of its tensors."""
    return any(name.startswith(ENCODERS) for name in names)


def check_fit(lora: Mapping[str, Shape], models: Mapping[str, Mapping[str, Shape]], name: str) -> None:
    """Check that a LoRA is whole and fits into a pipeline's denoisers.

    Args:
        lora: its tensors, by name.
        models: component -> tensor -> shape; of a quantised tensor any shape with a zero in it, which is not compared.
        name: what messages call the LoRA.

    Raises:
        CheckpointError: it has no layers, half ones, or layers that the models lack or have in another shape.
    """
    layers = _layers(lora, name)
    if not layers and not any(OTHER_KINDS.search(each) for each in lora):
        raise CheckpointError(f"{name} holds no layers of a LoRA, but {next(iter(lora))!r}", "Name a LoRA")
    for module, layer in layers.items():
        if layer.down[0] != layer.up[1]:
            ranks = f"rank {layer.down[0]} on one side and {layer.up[1]} on the other"
            raise CheckpointError(f"{name}: the layer {module!r} has {ranks}", "It is damaged: get it again")
    inputs = {shape[1] for model in models.values() for shape in model.values() if len(shape) > 1}
    known = [each for each in layers if _component(each, models)]
    for module, layer in layers.items():
        if module.startswith(ENCODERS) or not inputs:
            continue
        found = _tensor(module, models)
        if found is None and _component(module, models):
            raise CheckpointError(f"{name} has a layer {module!r}, which the model lacks", OF_ANOTHER)
        if found is not None:
            _compare(name, module, layer, found)
        elif layer.down[1] not in inputs and 0 not in inputs and not WIDENED.search(module):
            # Of a format whose names are not the model's: what its layers take must be what some layer of the model takes.
            message = f"{name}: the layer {module!r} takes {layer.down[1]:,} inputs, and no layer of the model does"
            raise CheckpointError(message, OF_ANOTHER)
    if models and layers and not known and all(re.match(r"(transformer|unet|prior)[._]", each) for each in layers):
        has = ", ".join(sorted(models))
        message = f"{name} is for a {next(iter(layers)).partition('.')[0]}, and the pipeline has {has or 'none'}"
        raise CheckpointError(message, OF_ANOTHER)


def on_component(models: Mapping[str, Mapping[str, Shape]], component: str | None) -> Mapping[str, Mapping[str, Shape]]:
    """Return the models that a LoRA is for which is put on this one: its layers call it as the first of its kind.

    Args:
        models: component -> tensor -> shape.
        component: such as transformer_2; None for where the LoRA's own names lead.
    """
    if component is None:
        return models
    return {component.rpartition("_")[0]: models[component]} if component in models else {}


def _compare(name: str, module: str, layer: Layer, base: Shape) -> None:
    if 0 in base or len(base) < 2 or WIDENED.search(module):
        return
    wanted = (base[1], base[0])
    if (layer.down[1], layer.up[0]) != wanted:
        found = f"{layer.down[1]:,} inputs and {layer.up[0]:,} outputs"
        message = f"{name}: the layer {module!r} has {found}, and the model's has {wanted[0]:,} and {wanted[1]:,}"
        raise CheckpointError(message, OF_ANOTHER)


def _layers(lora: Mapping[str, Shape], name: str) -> dict[str, Layer]:
    sides: dict[str, dict[str, Shape]] = {}
    for tensor, shape in lora.items():
        found = LAYER.fullmatch(tensor)
        if found is None:
            continue
        if len(shape) < 2:
            raise CheckpointError(f"{name}: the tensor {tensor!r} has the shape {list(shape)}, which is no matrix")
        side = "down" if found["side"] in ("A", "down") else "up"
        sides.setdefault(found["module"], {})[side] = shape
    for module, pair in sides.items():
        if len(pair) < 2:
            raise CheckpointError(f"{name} has only one half of the layer {module!r}")
    return {module: Layer(pair["down"], pair["up"]) for module, pair in sides.items()}


def _component(module: str, models: Mapping[str, object]) -> str | None:
    return next((each for each in models if module.startswith(f"{each}.")), None)


def _tensor(module: str, models: Mapping[str, Mapping[str, Shape]]) -> Shape | None:
    """Return the shape of the weight that a layer is added to, or None where no name of the models is like its own."""
    component = _component(module, models)
    if component is not None:
        return next((models[component][name] for name in _names(module, component) if name in models[component]), None)
    if module.startswith(UNDERSCORED):
        wanted = module.removeprefix(UNDERSCORED)
        for model in models.values():
            for name, shape in model.items():
                if name.removesuffix(".weight").replace(".", "_") == wanted:
                    return shape
    return None


def _names(module: str, component: str) -> Iterator[str]:
    plain = module.removeprefix(f"{component}.")
    yield f"{plain}.weight"
    yield f"{plain}.base_layer.weight"
    # diffusers' first format kept LoRAs in attention processors.
    plain = plain.replace(".processor.", ".")
    yield f"{plain}.weight"
    yield f"{plain}.0.weight"
