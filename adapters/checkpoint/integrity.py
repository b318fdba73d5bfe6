"""Check that a folder is a pipeline of diffusers and has all of its files, from names and headers alone."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from genrun.adapters.checkpoint import pipeline_classes as pipelines
from genrun.adapters.checkpoint.index import (
    AGAIN,
    INDEX,
    LIBRARIES,
    SHARD,
    CheckpointError,
    Files,
    check_present,
    choose,
    chosen,
    components_of,
    index_of,
    is_model,
    listed,
    read_mapping,
    variants_of,
)
from genrun.adapters.tensor_files import tensors_in

COMPONENT = re.compile(r"[A-Za-z_]\w*", re.ASCII)
TEXTS = (".json", ".txt", ".model", ".jinja", ".vocab", ".tiktoken")
"""Suffixes of configurations and tokenizers."""

PARSED_UP_TO_BYTES = 2**20
"""Bytes of a text up to which it is parsed; of a larger one (a tokenizer has up to 35 MB) both ends are checked."""

VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model", "*.tiktoken", "*.vocab", "tokenizer.bin")
BYTE_TOKENIZERS = ("ByT5", "Canine", "Perceiver")
"""Prefixes of the classes of tokenizers that need no vocabulary file."""

UPGRADE = "Upgrade diffusers: pip install -U diffusers"
OWN_CODE = "genrun runs no code that comes with a checkpoint. Name a checkpoint of a pipeline of diffusers"


def check_whole(
    folder: Path, index: Mapping[str, Any], variant: str | None = None, without: Collection[str] = ()
) -> None:
    """Check that a folder has every component that its index names, and every file of them to its end.

    Args:
        folder: of the pipeline.
        index: its model_index.json.
        variant: of the weights that a job asks for.
        without: components that are not read.

    Raises:
        CheckpointError: the first thing that is wrong, by name.
        OSError: a file cannot be read.
    """
    check_index(index)
    if not without:
        chosen(folder, variant)
    for name, (library, kind) in components_of(index).items():
        if name not in without:
            _check_component(folder, name, library, kind, variant)


def check_configurations(folder: Path, without: Collection[str] = ()) -> None:
    """Check that a folder has what a pipeline is made of but for weights: for a checkpoint in one file.

    Raises:
        CheckpointError: the first thing that is wrong, by name.
        OSError: a file cannot be read.
    """
    index = index_of(folder)
    check_index(index)
    for name, (library, kind) in components_of(index).items():
        if name in without:
            continue
        if is_model(name, kind):
            _check_config(folder / name / "config.json")
        else:
            _check_component(folder, name, library, kind, None)


def check_index(index: Mapping[str, Any]) -> None:
    """Check a model_index.json: a pipeline that the installed diffusers has, and the components that it needs.

    Raises:
        CheckpointError: the first thing that is wrong.
    """
    check_class(index.get("_class_name"))
    for name, entry in index.items():
        if not name.startswith("_"):
            _check_entry(name, entry)
    there = components_of(index)
    for name in pipelines.missing_components(str(index["_class_name"]), there):
        found = f" but has {_shown(index[name])} for it" if name in index else ""
        raise CheckpointError(f"its {INDEX} names no {name!r}, which {index['_class_name']} needs{found}")


def check_class(name: Any) -> None:
    """Check that a name is one of the installed diffusers' pipelines.

    Raises:
        CheckpointError: it is not.
    """
    if name is None or name == "":
        raise CheckpointError(f"its {INDEX} names no pipeline (_class_name)")
    if isinstance(name, list):
        parts = ".".join(str(part) for part in name)
        raise CheckpointError(f"its {INDEX} names a pipeline of its own code, {parts}", OWN_CODE)
    if not isinstance(name, str):
        raise CheckpointError(f"its {INDEX} has {_shown(name)} for the name of a pipeline (_class_name)")
    if not pipelines.is_exported(name):
        shown = name if name.isidentifier() else repr(name)
        raise CheckpointError(f"diffusers {pipelines.version()} has no pipeline {shown[:80]}", UPGRADE)
    if pipelines.call_parameters(name) is None:
        raise CheckpointError(f"its {INDEX} names {name!r} (_class_name), which is no pipeline")


def _check_entry(name: str, entry: Any) -> None:
    """Check one entry of a model_index.json; those that are no component are arguments of the pipeline, of any type."""
    is_pair = (
        isinstance(entry, list) and len(entry) == 2 and all(part is None or isinstance(part, str) for part in entry)
    )
    if isinstance(entry, list) and not is_pair and any(isinstance(part, str) or part is None for part in entry):
        raise CheckpointError(f"its {INDEX} has {_shown(entry)} for {name!r}, where a library and a class are wanted")
    if not is_pair or entry[0] is None or entry[1] is None:
        return
    library, kind = entry
    if not COMPONENT.fullmatch(name):
        raise CheckpointError(f"its {INDEX} names a component {name!r}, which is no name of a folder in it")
    if not kind.isidentifier():
        raise CheckpointError(f"its {INDEX} has the class {kind[:80]!r} for {name!r}, which is no name of a class")
    if library not in LIBRARIES and not pipelines.is_package(library):
        message = (
            f"its component {name!r} is of the library {library[:80]!r}, which is no part of diffusers or transformers"
        )
        raise CheckpointError(message, OWN_CODE)
    if library == "diffusers" and not pipelines.is_exported(kind):
        message = f"diffusers {pipelines.version()} has no class {kind!r}, which its component {name!r} is of"
        raise CheckpointError(message, UPGRADE)


def _shown(entry: Any) -> str:
    return json.dumps(entry)[:80]


def _check_component(folder: Path, name: str, library: str, kind: str, variant: str | None) -> None:
    part = folder / name
    if part.is_symlink() and not part.exists():
        check_present(part, f"its component {name!r}")
    if not part.is_dir():
        # A component may lie in the folder of the pipeline itself.
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"its component {name!r} is missing")
        return
    for path in sorted(part.iterdir()):
        if path.suffix in TEXTS and not path.name.startswith("."):
            _check_text(path)
    if is_model(name, kind):
        _check_model(part, library, kind, variant)
    elif kind.endswith("Scheduler"):
        _check_config(part / "scheduler_config.json")
    elif re.search(r"Tokenizer(Fast)?$", kind) and not kind.startswith(BYTE_TOKENIZERS):
        _check_vocabulary(part, f"its component {name!r}")
    elif not any(part.glob("*.json")):
        raise CheckpointError(f"its component {name!r} has no configuration (*.json)")


def _check_text(path: Path) -> None:
    """Check that a configuration or a tokenizer's file exists, and is JSON where its name says so."""
    name = f"{path.parent.name}/{path.name}"
    check_present(path, name)
    if path.suffix != ".json":
        return
    size = path.stat().st_size
    if size <= PARSED_UP_TO_BYTES:
        data = read_mapping(path, name)
        if path.name == "tokenizer.json" and not isinstance(data.get("model"), dict):
            raise CheckpointError(f"{name} has no vocabulary (model)")
        return
    with path.open("rb") as file:
        first = file.read(64).lstrip()[:1]
        file.seek(-64, 2)
        last = file.read().rstrip()[-1:]
    if first + last != b"{}":
        raise CheckpointError(f"{name} is damaged or was not downloaded to its end")


def _check_config(path: Path) -> None:
    """Check that a configuration says anything: of an empty one all defaults would be taken, which make other pictures."""
    name = f"{path.parent.name}/{path.name}"
    if not read_mapping(path, name):
        raise CheckpointError(f"{name} has no settings")


def _check_model(part: Path, library: str, kind: str, variant: str | None) -> None:
    name = part.name
    files = choose(part, library, variant)
    if files is None:
        if (part / "config.json").is_file() or not any(part.glob("*.json")):
            other = sorted(path.name for path in part.glob("*.safetensors"))
            shards = [name for name in other if SHARD.search(name.removesuffix(".safetensors"))]
            if shards:
                first = SHARD.sub("", shards[0].removesuffix(".safetensors"))
                raise CheckpointError(
                    f"{name}/{first}.safetensors.index.json is missing, which lists what is in {shards[0]}"
                )
            found = f", only {listed(other[:3])}, which {kind} does not read" if other else " (*.safetensors)"
            raise CheckpointError(f"its component {name!r} has no weights{found}")
        return
    _check_config(part / "config.json")
    _check_tensors(files)


def check_component(folder: Path, kind: str, variant: str | None = None) -> dict[str, Any]:
    """Check that a folder is a whole model: its configuration, and every file of its weights to its end.

    Args:
        folder: of the component.
        kind: what messages call it, such as ControlNet.
        variant: of the weights that a job asks for.

    Returns:
        Its config.json.

    Raises:
        CheckpointError: the first thing that is wrong, by name.
        OSError: a file cannot be read.
    """
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder.name} is no folder", "Name the folder that has its config.json")
    if (folder / INDEX).is_file() and not (folder / "config.json").exists():
        names = ", ".join(components_of(index_of(folder)))
        raise CheckpointError(
            f"{folder.name} is a whole pipeline", f"Name the folder of one of its components: {names}"
        )
    config = read_mapping(folder / "config.json", f"{folder.name}/config.json")
    library = "diffusers" if isinstance(config.get("_class_name"), str) else "transformers"
    _check_model(folder, library, kind, variant if variant in variants_of(folder, library) else None)
    if choose(folder, library, None) is None:
        raise CheckpointError(f"{folder.name} has no weights (*.safetensors)")
    return config


def check_tokenizer(folder: Path) -> dict[str, Any]:
    """Check that a folder is a whole tokenizer.

    Returns:
        Its tokenizer_config.json; {} where it has none.

    Raises:
        CheckpointError: the first thing that is wrong, by name.
        OSError: a file cannot be read.
    """
    for path in sorted(folder.iterdir()):
        if path.suffix in TEXTS and not path.name.startswith("."):
            _check_text(path)
    _check_vocabulary(folder, f"the tokenizer in {folder.name!r}")
    config = folder / "tokenizer_config.json"
    return read_mapping(config, f"{folder.name}/{config.name}") if config.is_file() else {}


def _check_tensors(files: Files) -> None:
    """Check every weights file to its end, and that each tensor of an index is in the shard that it names."""
    part = files.folder.name
    if files.single is not None:
        _tensors(files.single)
        return
    assert files.index is not None
    check_present(files.index, f"{part}/{files.index.name}")
    for shard, names in sorted(files.shards.items()):
        missing = sorted(set(names) - _tensors(files.folder / shard))
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            where = f"{part}/{files.index.name} says"
            raise CheckpointError(f"{part}/{shard} lacks the tensor {missing[0]!r}{more}, which {where} is in it")


def _tensors(path: Path) -> set[str]:
    name = f"{path.parent.name}/{path.name}"
    check_present(path, name)
    try:
        found = set(tensors_in(path))
    except OSError as error:
        raise CheckpointError(f"{name} cannot be read: {error.strerror or error}", "Make it readable") from error
    except ValueError as error:
        raise CheckpointError(f"{name} is damaged or was not downloaded to its end: {error}", AGAIN) from error
    if not found:
        raise CheckpointError(f"{name} holds no tensors")
    return found


def _check_vocabulary(part: Path, name: str) -> None:
    there = [pattern for pattern in VOCABULARIES if any(part.glob(pattern))]
    if not there:
        raise CheckpointError(f"{name} has no vocabulary ({', '.join(VOCABULARIES[:4])})")
    # Without its merges a byte-pair tokenizer is loaded without a word, and spells every prompt letter by letter.
    if there == ["vocab.json"] and not (part / "merges.txt").is_file():
        raise CheckpointError(f"{part.name}/merges.txt is missing")
