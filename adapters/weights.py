"""Safetensors files and the JSON beside them, read without loading: what they hold, and whether they are whole."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INDEX = "model_index.json"
MAX_HEADER_BYTES = 100 * 2**20
MAX_JSON_BYTES = 64 * 2**20
LIBRARIES = ("diffusers", "transformers")
NO_WEIGHTS = ("tokenizer", "processor", "scheduler", "feature_extractor", "image_processor", "guider")
"""How the names of components without weights begin."""

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
AGAIN = "Download it again: what is complete is kept"
PULL = "Run `git lfs install && git lfs pull` in it, or get it with `hf download`"

BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
"""Bits of a number, by dtype as safetensors names it."""


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
        return math.prod(self.shape)


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
        raise CheckpointError(f"{name} is no file")
    with path.open("rb") as file:
        beginning = file.read(len(LFS_POINTER))
    if not beginning:
        raise CheckpointError(f"{name} is empty")
    if beginning == LFS_POINTER:
        raise CheckpointError(f"{name} is a pointer of Git LFS, and the file itself was not fetched", PULL)


def header_of(path: Path) -> dict[str, Tensor]:
    """Read the tensors in a safetensors file, by name; only its header is read.

    Raises:
        ValueError: it is no such file, or shorter or longer than its header says.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > MAX_HEADER_BYTES:
            raise ValueError("it is no safetensors file")
        raw = file.read(length)
    try:
        header = json.loads(raw.decode("utf-8"))
        header.pop("__metadata__", None)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("it is no safetensors file, or only its beginning") from error
    entries = {name: _tensor(name, entry) for name, entry in header.items()}
    end = 0
    for name, (begin, next_end, _) in sorted(entries.items(), key=lambda item: item[1][:2]):
        if begin != end:
            raise ValueError(f"its header puts the tensor {name!r} at byte {begin:,}, where {end:,} was due")
        end = next_end
    wanted = 8 + length + end
    if size != wanted:
        raise ValueError(f"it has {size:,} bytes of {wanted:,}")
    return {name: tensor for name, (_, _, tensor) in entries.items()}


def _tensor(name: str, entry: Any) -> tuple[int, int, Tensor]:
    """Where the bytes of a tensor begin and end, and what it is. Raises ValueError."""
    try:
        begin, end = entry["data_offsets"]
        dtype, shape = entry["dtype"], entry["shape"]
        is_typed = isinstance(dtype, str) and all(type(each) is int and each >= 0 for each in (begin, end, *shape))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"its header does not describe the tensor {name!r}") from error
    if not is_typed:
        raise ValueError(f"its header does not describe the tensor {name!r}")
    tensor, bits = Tensor(dtype, tuple(shape), end - begin), BITS.get(dtype)
    if end < begin or (bits is not None and tensor.size_bytes != math.ceil(tensor.count * bits / 8)):
        message = (
            f"its header gives the tensor {name!r} {end - begin:,} bytes, which is not the size of {dtype} {shape}"
        )
        raise ValueError(message)
    return begin, end, tensor


def _short(error: BaseException) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]


def _kind(data: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(data), "a number")
