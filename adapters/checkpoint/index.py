"""A checkpoint's model_index.json and other JSON, read as diffusers reads them, with errors that name the file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
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
