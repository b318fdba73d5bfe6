"""A checkpoint's model_index.json and other JSON, and which weights files are loaded, as diffusers reads and chooses them.

Errors name the file. A component's weights lie in one file or in shards, plain or in a variant such as fp16.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

INDEX = "model_index.json"
# An index of shards lists every tensor.
MAX_JSON_BYTES = 64 * 2**20
LIBRARIES = ("diffusers", "transformers")
NO_WEIGHTS = ("tokenizer", "processor", "scheduler", "feature_extractor", "image_processor", "guider")
"""Prefixes of the names of components without weights."""

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
AGAIN = "Download it again: what is complete is kept"
PULL = "Run `git lfs install && git lfs pull` in it, or get it with `hf download`"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used.

    Attributes:
        message: what is wrong, by the name of the file.
        remedy: what to do about it.
    """

    def __init__(self, message: str, remedy: str = AGAIN) -> None:
        super().__init__(f"{message}. {remedy}")
        self.message = message
        self.remedy = remedy


def download_command(source: str) -> str:
    """Spell the command that gets a checkpoint: of a folder, which does not say where it came from, with a blank to fill."""
    is_folder = Path(source).is_dir()
    return f"hf download ORG/NAME --local-dir {shlex.quote(source)}" if is_folder else f"hf download {source}"


def index_of(folder: Path) -> dict[str, Any]:
    """Read a pipeline's model_index.json.

    Raises:
        CheckpointError: it cannot be read, or is no mapping.
    """
    return read_mapping(folder / INDEX, f"its {INDEX}")


def components_of(index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Map component to library and class, of a model_index.json; those that are not there (null) are left out."""
    pairs = {name: entry for name, entry in index.items() if isinstance(entry, list) and len(entry) == 2}
    return {
        name: (entry[0], entry[1])
        for name, entry in pairs.items()
        if not name.startswith("_") and all(isinstance(x, str) for x in entry)
    }


def read_mapping(path: Path, name: str, limit: int = 2**20) -> dict[str, Any]:
    """Read a file of a JSON mapping, as diffusers and transformers do: UTF-8, without a byte order mark.

    Args:
        path: the file.
        name: what messages call it.
        limit: the largest size in bytes that is read.

    Raises:
        CheckpointError: it is not there, too large, a pointer of Git LFS, or no JSON mapping.
    """
    try:
        check_present(path, name)
        with path.open("rb") as file:
            raw = file.read(limit + 1)
        if len(raw) > limit:
            raise CheckpointError(f"{name} is larger than {limit / 2**20:.0f} MiB, so it is not what it should be")
        if raw.startswith(BYTE_ORDER_MARK):
            raise CheckpointError(f"{name} begins with a byte order mark", "Save it as UTF-8 without one")
        data = json.loads(raw.decode("utf-8"))
    except CheckpointError:
        raise
    except OSError as error:
        raise CheckpointError(f"{name} cannot be read: {error.strerror or error}", "Make it readable") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} cannot be read: {_short(error)}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{name} is no mapping, but {_kind(data)}")
    return data


def check_present(path: Path, name: str) -> None:
    """Check that a file is there and is more than a stand-in for it: an empty file, a dangling link, a pointer.

    Raises:
        CheckpointError: it is not.
        OSError: it cannot be read.
    """
    if path.is_symlink() and not path.exists():
        raise CheckpointError(
            f"{name} is a link to {str(path.readlink())!r}, which is not there",
            "Copy the files that links point to as well (cp -rL), or download it again",
        )
    if not path.exists():
        raise CheckpointError(f"{name} is missing")
    if not path.is_file():
        what = "a folder" if path.is_dir() else "a pipe or device"
        raise CheckpointError(f"{name} is no file, but {what}", "Put the file itself there")
    with path.open("rb") as file:
        beginning = file.read(len(LFS_POINTER))
    if not beginning:
        raise CheckpointError(f"{name} is empty")
    if beginning == LFS_POINTER:
        raise CheckpointError(f"{name} is a pointer of Git LFS, and the file itself was not fetched", PULL)


def _short(error: BaseException) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]


def _kind(data: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(data), "a number")


BASES = {"diffusers": ("diffusion_pytorch_model",), "transformers": ("model",)}
"""Library -> base names of its weights files; components of other libraries may use either."""

EITHER = ("diffusion_pytorch_model", "model")
SHARD = re.compile(r"-\d{5}-of-\d{5}$")
SHARD_NAME = re.compile(r"[^/\\\0]+\.safetensors")
SINGLE = re.compile(r"(?P<base>\w+)(\.(?P<variant>[^.]+))?\.safetensors")
LISTING = re.compile(
    r"(?P<base>\w+)\.safetensors(\.index(\.(?P<variant>[^.]+))?\.json|\.(?P<legacy>[^.]+)\.index\.json)"
)
NO_MODELS = re.compile(r"(Tokenizer|Scheduler|Processor|FeatureExtractor|Guidance)(Fast|Pil)?$")
"""Suffixes of the names of classes without weights."""


@dataclass(frozen=True)
class Files:
    """The weights of one component.

    Attributes:
        folder: of the component.
        variant: such as fp16; None for the plain files.
        index: the file that lists tensors and shards; None where there is one file.
        single: the one file; None where there is an index.
    """

    folder: Path
    variant: str | None
    index: Path | None
    single: Path | None

    @property
    def shards(self) -> dict[str, list[str]]:
        """The tensors of each shard, as the index says. Raises CheckpointError where it cannot be read."""
        if self.index is None:
            return {}
        name = f"{self.folder.name}/{self.index.name}"
        weight_map = read_mapping(self.index, name, MAX_JSON_BYTES).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{name} lists no tensors (weight_map)")
        shards: dict[str, list[str]] = {}
        for tensor, shard in weight_map.items():
            if not isinstance(shard, str) or not SHARD_NAME.fullmatch(shard):
                raise CheckpointError(f"{name} names {shard!r} for the tensor {tensor!r}, which is no file beside it")
            shards.setdefault(shard, []).append(tensor)
        return shards

    @property
    def paths(self) -> list[Path]:
        """Every file of tensors that is read. Raises CheckpointError where the index cannot be read."""
        return [self.single] if self.single is not None else [self.folder / name for name in sorted(self.shards)]


def is_model(name: str, class_name: str) -> bool:
    """Tell whether a component has weights, by its name and class."""
    return not name.startswith(NO_WEIGHTS) and not NO_MODELS.search(class_name)


def variants_of(folder: Path, library: str) -> dict[str | None, Files]:
    """List the weights in a component's folder by variant, the plain ones under None. Links need not lead anywhere."""
    found: dict[str | None, Files] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        base, variant, is_index = _parts(path.name)
        if base not in BASES.get(library, EITHER):
            continue
        # Of a file and a list of shards, transformers reads the file and diffusers the shards.
        if variant not in found or is_index == (base != "model"):
            found[variant] = Files(folder, variant, path, None) if is_index else Files(folder, variant, None, path)
    return found


def variants_in(names: Iterable[str]) -> set[str]:
    """List the variants among the names of files, such as those of a repository."""
    parts = (_parts(PurePath(name).name) for name in names)
    return {variant for base, variant, _ in parts if base in EITHER and variant is not None}


def _parts(name: str) -> tuple[str, str | None, bool]:
    """Return the base of a weights file's name ("" for another file), its variant, and whether it lists shards."""
    listing, single = LISTING.fullmatch(name), SINGLE.fullmatch(name)
    if listing:
        return listing["base"], listing["variant"] or listing["legacy"], True
    if single and not SHARD.search(single["variant"] or single["base"]):
        return single["base"], single["variant"], False
    return "", None, False


def choose(folder: Path, library: str, variant: str | None) -> Files | None:
    """Choose the weights of a component: those of the variant, else the plain ones, else those of its only variant.

    Args:
        folder: of the component.
        library: diffusers, transformers or another.
        variant: that a job asks for, or None.

    Returns:
        None where there are no weights.

    Raises:
        CheckpointError: it has other variants, and which one to take is not said.
    """
    found = variants_of(folder, library)
    if not found or (variant is not None and variant in found):
        return found.get(variant)
    if None in found:
        return found[None]
    if variant is None and len(found) == 1:
        return next(iter(found.values()))
    names = listed(name for name in found if name)
    if variant is not None:
        raise CheckpointError(f"its component {folder.name!r} has no variant {variant!r}, only {names}", _say(found))
    raise CheckpointError(f"its component {folder.name!r} has weights in several variants: {names}", _say(found))


def chosen(folder: Path, variant: str | None = None) -> dict[str, Files]:
    """Choose the weights of every component of a pipeline's folder that has any.

    Raises:
        CheckpointError: as `choose`; or no component has the variant; or the folder is no pipeline.
    """
    models = {
        name: library for name, (library, kind) in components_of(index_of(folder)).items() if is_model(name, kind)
    }
    if variant is not None:
        there = {name for part, library in models.items() for name in variants_of(folder / part, library)}
        if variant not in there:
            names = listed(name for name in there if name)
            only = f"only {names}" if names else "only weights that have no variants"
            raise CheckpointError(f"it has no weights in the variant {variant!r}, {only}", _say(there))
    files = {name: choose(folder / name, library, variant) for name, library in models.items()}
    return {name: each for name, each in files.items() if each is not None}


def changes_weights(folder: Path, variant: str | None) -> bool:
    """Tell whether asking for a variant makes a folder's pipeline read other files than it would otherwise."""
    if variant is None:
        return False
    try:
        plain = chosen(folder)
    except CheckpointError:
        return True
    return plain != chosen(folder, variant)


def listed(names: Iterable[str]) -> str:
    """Join names for a message: a, b and c."""
    *first, last = sorted(names) or [""]
    return f"{', '.join(first)} and {last}" if first else last


def _say(found: Iterable[str | None]) -> str:
    names = sorted(name for name in found if name)
    return f"Say which: model.variant: {names[0]}" if names else "Leave model.variant out"
