"""What a folder of weights says of itself without being loaded: its pipeline, its components, whether it is whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INDEX = "model_index.json"
SHARDS = "*.safetensors.index.json"
MAX_HEADER_BYTES = 100 * 2**20
LIBRARIES = ("diffusers", "transformers")
NO_WEIGHTS = ("tokenizer", "processor", "scheduler", "feature_extractor", "image_processor", "guider")
"""How the names of components without weights begin."""


@dataclass(frozen=True)
class Tensor:
    """A tensor in a safetensors file, as its header says.

    Attributes:
        dtype: such as BF16.
        shape: its sizes.
        size_bytes: in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    size_bytes: int

    @property
    def count(self) -> int:
        """Numbers in it."""
        product = 1
        for size in self.shape:
            product *= size
        return product


def index_of(folder: Path) -> dict[str, Any]:
    """A pipeline's model_index.json.

    Raises:
        ValueError: it is none.
    """
    try:
        index = json.loads((folder / INDEX).read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"its {INDEX} cannot be read: {error}") from error
    if not isinstance(index, dict):
        raise ValueError(f"its {INDEX} is no mapping")
    return index


def components_of(index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Component -> library and class, of a model_index.json; those that are not there (null) are left out."""
    pairs = {name: entry for name, entry in index.items() if isinstance(entry, list) and len(entry) == 2}
    return {name: (entry[0], entry[1]) for name, entry in pairs.items() if all(isinstance(x, str) for x in entry)}


def header_of(path: Path) -> dict[str, Tensor]:
    """The tensors in a safetensors file, by name; only its header is read.

    Raises:
        ValueError: it is no such file, or shorter than its header says.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise ValueError("it is no safetensors file")
        raw = file.read(length)
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        tensors = {name: _tensor(entry) for name, entry in header.items()}
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError("it is no safetensors file, or only its beginning") from error
    size, wanted = path.stat().st_size, 8 + length + end
    if size < wanted:
        raise ValueError(f"it has {size:,} bytes of {wanted:,}")
    return tensors


def check_whole(folder: Path, index: Mapping[str, Any]) -> None:
    """Check that a folder has every component that its index names, and every weights file to its end.

    Raises:
        ValueError: the first that is missing or cut off, by name.
    """
    for wrong in _missing(folder, index):
        raise ValueError(f"{wrong}. Download it again: what is complete is kept")


def _missing(folder: Path, index: Mapping[str, Any]) -> Iterator[str]:
    for name, (library, _) in components_of(index).items():
        part = folder / name
        if library in LIBRARIES and not part.is_dir():
            yield f"its component {name!r} is missing"
        elif (
            (part / "config.json").is_file() and not name.startswith(NO_WEIGHTS) and not any(part.glob("*.safetensors"))
        ):
            yield f"its component {name!r} has no weights (*.safetensors)"
    for path in sorted(folder.glob(f"*/{SHARDS}")):
        for shard in sorted(set(json.loads(path.read_bytes()).get("weight_map", {}).values())):
            if not (path.parent / shard).is_file():
                yield f"{path.parent.name}/{shard} is missing"
    for path in sorted(folder.glob("*/*.safetensors")):
        try:
            header_of(path)
        except ValueError as error:
            yield f"{path.relative_to(folder).as_posix()} is damaged or was not downloaded to its end: {error}"


def _tensor(entry: Mapping[str, Any]) -> Tensor:
    begin, end = entry["data_offsets"]
    return Tensor(entry["dtype"], tuple(entry["shape"]), end - begin)
