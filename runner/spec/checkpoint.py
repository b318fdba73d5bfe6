"""Checkpoints: a folder in diffusers' layout, or a hub id; whether it can be used, and what identifies it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from genrun.adapters.weights import check_whole, index_of

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
WEIGHTS = ".safetensors"
TEXTS = (".json", ".txt", ".model", ".jinja", ".vocab")
"""Suffixes of configurations and tokenizers; other files (README.md, pictures) change nothing."""

WHOLE_UP_TO_BYTES = 64 * 2**20
CHUNK_BYTES = 2**16
CHUNKS = 64
MAX_HEADER_BYTES = 100 * 2**20


@dataclass(frozen=True)
class Checkpoint:
    """Weights that can be named.

    Attributes:
        name: the absolute folder, or the hub id.
        folder: the folder, or None for a hub id.
    """

    name: str
    folder: Path | None

    def fingerprint(self, revision: str | None) -> str:
        """What identifies the weights: of a folder its content, of a hub id its name and revision."""
        return f"hub:{self.name}@{revision or 'main'}" if self.folder is None else fingerprint(self.folder)


def locate(text: str, base: Path) -> Checkpoint:
    """Find a checkpoint.

    Args:
        text: a folder, relative to `base`, or a hub id "org/name". A folder that exists wins.
        base: the folder of the file that names it.

    Raises:
        ValueError: it is neither, or the folder is no diffusers pipeline of safetensors.
    """
    path = base / (Path.home() / text[2:] if text.startswith("~/") else text)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise ValueError(f"{text!r} cannot be looked at: {error.strerror}.") from error
    if is_folder:
        check_folder(path, text)
        return Checkpoint(str(path.resolve()), path.resolve())
    if is_file:
        raise ValueError(f"{text!r} is a file; wanted a folder with a model_index.json, or a hub id.")
    if HUB_ID.fullmatch(text):
        return Checkpoint(text, None)
    raise ValueError(f"{text!r} is neither a folder nor a hub id such as org/name.")


def check_folder(folder: Path, name: str) -> None:
    """Check that a folder is a diffusers pipeline with safetensors weights.

    Raises:
        ValueError: no model_index.json, no weights, weights in pickles alone, or a part that is missing or cut off.
    """
    if not (folder / "model_index.json").is_file():
        remedy = "Write one with pipe.save_pretrained(folder), or name the folder that has it"
        raise ValueError(f"the folder {name!r} has no model_index.json, so it is no diffusers pipeline. {remedy}.")
    files = list(_files(folder))
    safe = {path.parent for path in files if path.suffix == WEIGHTS}
    pickles = [path for path in files if path.suffix in PICKLES and path.parent not in safe]
    if pickles:
        weights = pickles[0].relative_to(folder).as_posix()
        remedy = "Convert it where you trust it: pipe.save_pretrained(folder, safe_serialization=True)"
        raise ValueError(f"{name!r} has weights as a pickle ({weights}), which can run code when it is read. {remedy}.")
    if not safe:
        raise ValueError(f"the folder {name!r} has no weights (*.safetensors). Download all of it.")
    try:
        check_whole(folder, index_of(folder))
    except ValueError as error:
        raise ValueError(f"the folder {name!r} cannot be used: {error}.") from error


def fingerprint(folder: Path) -> str:
    """Hash what a folder's pipeline is made of: names, sizes, configurations and weights.

    A weights file of up to 64 MiB is read whole; of a larger one its header and 64 chunks of 64 KiB spread over the
    file are read, so that terabytes need not be: a change outside them goes unseen.

    Returns:
        "folder:" and 32 hex digits.
    """
    digest = hashlib.sha256()
    for path in sorted(_files(folder), key=lambda path: path.relative_to(folder).as_posix()):
        if path.suffix in TEXTS or path.suffix == WEIGHTS:
            size = path.stat().st_size
            name = path.relative_to(folder).as_posix()
            digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
            for piece in _whole(path) if size <= WHOLE_UP_TO_BYTES else _sampled(path, size):
                digest.update(piece)
    return f"folder:{digest.hexdigest()[:32]}"


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file():
            yield path


def _whole(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(2**20):
            yield piece


def _sampled(path: Path, size: int) -> Iterator[bytes]:
    """The header of a safetensors file (length in its first 8 bytes), and chunks from first to last byte."""
    with path.open("rb") as file:
        length = file.read(8)
        yield length
        yield file.read(min(int.from_bytes(length, "little"), MAX_HEADER_BYTES))
        for index in range(CHUNKS):
            file.seek((size - CHUNK_BYTES) * index // (CHUNKS - 1))
            yield file.read(CHUNK_BYTES)
