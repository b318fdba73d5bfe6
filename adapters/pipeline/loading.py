"""Load a diffusers pipeline, or the half of it that a stage needs: text encoders alone, or all but these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genrun.adapters.adapter import Adapter
from genrun.adapters.checkpoint.diffusers_source import control_of, pipeline_for
from genrun.adapters.checkpoint.index import components_of, index_of, variants_in
from genrun.adapters.checkpoint.integrity import check_configurations, check_index, check_whole
from genrun.adapters.checkpoint.lora import tensors_of
from genrun.adapters.checkpoint.parts import TOKENIZER
from genrun.adapters.checkpoint.strict import LoadError, complete_models, explained
from genrun.adapters.pipeline.additions import Additions
from genrun.adapters.pipeline.encoders import encodes
from genrun.adapters.pipeline.load_options import ENCODERS, LoadOptions, pipeline_config
from genrun.adapters.pipeline.parts import add_ip_adapter, kind_of_first, load_parts, put_loras, refuse_holes
from genrun.adapters.pipeline.placement import compile_denoisers, place, place_encoders, set_up_vae

Index = Mapping[str, Any]
"""A checkpoint's model_index.json: component -> [library, class], among other things."""


def load(
    adapter: Adapter,
    checkpoint: str | Path | None,
    *,
    dtype: str | Mapping[str, str] | None,
    device: str,
    revision: str | None = None,
    load_options: LoadOptions | None = None,
    encoders: bool = True,
) -> Any:
    """Load a diffusers pipeline from safetensors weights, ready to sample.

    Args:
        adapter: the model.
        checkpoint: folder or hub id; the adapter's own by default.
        dtype: float32, bfloat16 or float16; the adapter's by default; or one for each component.
        device: a torch device.
        revision: of a hub id.
        load_options: how the weights are held, in place of `dtype`.
        encoders: whether text encoders are loaded; without them, prompts must be encoded already.

    Raises:
        LoadError: the checkpoint is not there, not whole, or not this adapter's; or it cannot be held so.
    """
    load_options = load_options or LoadOptions(dtype or adapter.dtype)
    source = str(checkpoint or adapter.checkpoint)
    with explained(source):
        index = read_index(adapter, source, revision, load_options)
        without = {} if encoders else dict.fromkeys(encoder_names(index))
        pipe = _assembled(source, index, revision, load_options, without)
        with complete_models(None):
            add_ip_adapter(pipe, load_options.additions.ip_adapter)
        set_up_vae(pipe, load_options)
        # Before modules are compiled or shared among ranks; on the CPU, in their own number type.
        put_loras(pipe, load_options.additions.loras)
        place(pipe, device, load_options.offload)
        compile_denoisers(pipe, load_options.compile)
        return pipe


def load_encoders(
    adapter: Adapter, checkpoint: str | Path | None, *, device: str, revision: str | None, load_options: LoadOptions
) -> Any:
    """Load a pipeline with its text encoders on the device, and its other models without weights.

    It encodes prompts (`embeddings.encode`) and can do nothing else.

    Raises:
        LoadError: as `load`.
    """
    source = str(checkpoint or adapter.checkpoint)
    with explained(source):
        index = read_index(adapter, source, revision, load_options)
        hollow = {
            name: _hollow(name, source, revision, index[name], load_options)
            for name in index
            if not name.startswith(ENCODERS) and _is_model(index[name])
        }
        added = load_options.additions
        of_texts = (ENCODERS, TOKENIZER)
        encoders = {name: path for name, path in added.components.items() if path is None or name.startswith(of_texts)}
        plain = replace(load_options, additions=Additions(components=encoders, config=added.config, file=added.file))
        pipe = _assembled(source, index, revision, plain, hollow)
        place_encoders(pipe, encoder_names(index), device, load_options.offload)
        return _running_on(pipe, torch.device(device))


def has_encoding_stage(
    adapter: Adapter, checkpoint: str | Path | None, revision: str | None, load_options: LoadOptions
) -> bool:
    """Return whether a checkpoint has text encoders that a stage of its own can run. Raises LoadError."""
    source = str(checkpoint or adapter.checkpoint)
    with explained(source):
        index = read_index(adapter, source, revision, load_options)
        # A prior makes of the text what the denoiser is told, before the loop: it would be called without its weights.
        return bool(encoder_names(index)) and "prior" not in index and encodes(_pipeline_class(source, index))


def read_index(adapter: Adapter, source: str, revision: str | None, load_options: LoadOptions) -> Index:
    """Read a checkpoint's model_index.json, and check it against its adapter and the components that options name."""
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

    pipeline: Any = DiffusionPipeline
    # Of a checkpoint in one file, its configurations say what it is.
    config = load_options.additions.config
    is_folder = Path(source).is_dir()
    described = Path(config) if config is not None else Path(source)
    index: Index = index_of(described) if described.is_dir() else pipeline.load_config(source, revision=revision)
    found = index.get("_class_name")
    wanted = {form.pipeline for form in (adapter, *adapter.forms)}
    if wanted.isdisjoint((None, found)):
        raise LoadError(
            f"{source}: holds a {found}, and the model {adapter.name!r} wants a {adapter.pipeline}",
            "Name a checkpoint of that pipeline, or use `adapter: auto` for any.",
        )
    check_index(index)
    replaced = load_options.additions.components
    if is_folder:
        check_whole(Path(source), index, load_options.variant, replaced)
    if config is not None:
        check_configurations(described, replaced)
        tensors_of(Path(source), source)
    # What a pipeline is to go without is no component of it.
    index = {**index, **{name: [None, None] for name, path in replaced.items() if path is None}}
    known = list(components_of(index))
    for name in load_options.components:
        if name not in known:
            raise LoadError(f"{source}: has no component {name!r}", f"Its components are {', '.join(known)}.")
    return index


def encoder_names(index: Index) -> list[str]:
    """List the text encoders of a checkpoint."""
    return [name for name in components_of(index) if name.startswith(ENCODERS)]


def _pipeline_class(source: str, index: Index) -> Any:
    import diffusers

    name = str(index.get("_class_name"))
    found = getattr(diffusers, name, None)
    if found is None:
        version = diffusers.__version__
        raise LoadError(f"{source}: diffusers {version} has no pipeline {name}", "Upgrade it: pip install -U diffusers")
    return found


def _assembled(
    source: str, index: Index, revision: str | None, load_options: LoadOptions, given: Mapping[str, Any]
) -> Any:
    """Load a pipeline of the class that its task and its controls ask for, with what replaces its components.

    Args:
        source: the folder, file or hub id.
        index: its model_index.json.
        revision: of a hub id.
        load_options: how it is held, and what is added.
        given: components that are not read, and what is put in their place.
    """
    added = load_options.additions
    own = str(index.get("_class_name"))
    chosen = pipeline_for(own, added.task, control_of(added.control, kind_of_first(added.controlnet)))
    if chosen is None:
        what = " and ".join(filter(None, (added.task, added.control)))
        raise LoadError(f"{source}: diffusers has no pipeline for {what} beside {own}", "Leave it out of the job.")
    plain = _pipeline_class(source, {**index, "_class_name": chosen})
    with complete_models(load_options.variant):
        given = {**load_parts(plain, source, index, revision, load_options, without=given), **given}
    if added.config is not None:
        return _from_single_file(plain, source, load_options, given)
    pipe = _from_pretrained(plain, source, revision, load_options, given)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _from_single_file(plain: Any, source: str, load_options: LoadOptions, given: Mapping[str, Any]) -> Any:
    """Load a pipeline from a file of weights, with configurations from a folder: nothing is asked of the hub."""
    dtypes = _dtypes(load_options)
    if isinstance(dtypes, dict):
        raise LoadError(f"{source}: weights in one file have one number type", "Name one: model.dtype: bfloat16.")
    ways = {"config": load_options.additions.config, "local_files_only": True, "dtype": dtypes}
    pipe = plain.from_single_file(source, **ways, **given)
    for name, part in pipe.components.items():
        if name not in given and isinstance(part, nn.Module):
            refuse_holes(part, f"{source}: the {name}")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _from_pretrained(
    plain: Any, source: str, revision: str | None, load_options: LoadOptions, given: Mapping[str, Any]
) -> Any:
    """Load a pipeline, with the given components in place of those of the checkpoint, which are not read."""

    def load_config(*args: Any, **kwargs: Any) -> Any:
        # from_pretrained reads the weights even of a component that it is given, where that is an optional one.
        found = plain.load_config(*args, **kwargs)
        return {**found, **{name: [None, None] for name in given if name in found}}

    folder = Path(source)
    if not folder.is_dir():
        folder = download(plain, source, revision, load_options.variant, given)
        check_whole(folder, index_of(folder), load_options.variant, without=given)
    options: dict[str, Any] = {**given, "use_safetensors": True}
    config = pipeline_config(load_options.quantization)
    if config is not None:
        options["quantization_config"] = config
    loader: Any = type(plain.__name__, (plain,), {"load_config": staticmethod(load_config)})
    with complete_models(load_options.variant):
        pipe = loader.from_pretrained(str(folder), dtype=_dtypes(load_options), **options)
    pipe.__class__ = plain
    return pipe


def download(plain: Any, source: str, revision: str | None, variant: str | None, given: Mapping[str, Any]) -> Path:
    """Return the folder of a hub id in the hub's cache, with all files of the components that are not given.

    Args:
        plain: the pipeline's class.
        source: the hub id.
        revision: of it.
        variant: of the weights; by default the plain ones, or the only ones.
        given: components that are not read.
    """
    ways = {**given, "revision": revision, "use_safetensors": True}
    try:
        return Path(plain.download(source, variant=variant, **ways))
    except OSError as error:
        # Some component has no plain weights. With the name of a variant, the others' plain ones are taken as before.
        variants = variants_in(_files_of(source, revision)) if "safetensors" in str(error) and not variant else set()
        if len(variants) != 1:
            raise
        return Path(plain.download(source, variant=variants.pop(), **ways))


def _files_of(source: str, revision: str | None) -> list[str]:
    """List the files of a hub id: all that the hub has, or without a network those in its cache."""
    from huggingface_hub import list_repo_files, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        return list_repo_files(source, revision=revision)
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError):
        folder = Path(snapshot_download(source, revision=revision, local_files_only=True))
        return [path.as_posix() for path in folder.rglob("*")]


def _dtypes(load_options: LoadOptions) -> Any:
    if isinstance(load_options.dtype, str):
        return getattr(torch, load_options.dtype)
    return {name: getattr(torch, dtype) for name, dtype in load_options.dtype.items()}


def _is_model(entry: Any) -> bool:
    import diffusers

    if not isinstance(entry, list | tuple) or entry[0] != "diffusers":
        return False
    kind = getattr(diffusers, entry[1], None)
    return isinstance(kind, type) and issubclass(kind, nn.Module)


def _hollow(name: str, source: str, revision: str | None, entry: Any, load_options: LoadOptions) -> nn.Module:
    """Make a model of the right class, configuration and dtype, whose parameters take no memory."""
    import diffusers
    from accelerate import init_empty_weights

    kind: Any = getattr(diffusers, entry[1])
    added = load_options.additions
    elsewhere = added.components.get(name)
    if elsewhere is not None and Path(elsewhere).is_dir():
        config = kind.load_config(elsewhere)
    else:
        config = kind.load_config(added.config or source, subfolder=name, revision=revision)
    with init_empty_weights():
        model = kind.from_config(config)
    # Not `model.to`, which warns of what a cast does to weights: there are none.
    return nn.Module.to(model, getattr(torch, load_options.dtype_of(name)))


def _running_on(pipe: Any, device: torch.device) -> Any:
    """Make a pipeline run on a device that not all of its models are on."""
    plain = type(pipe)
    on_device = property(lambda _: device)
    members = {"_execution_device": on_device, "device": on_device, "__module__": plain.__module__}
    pipe.__class__ = type(plain.__name__, (plain,), members)
    return pipe
