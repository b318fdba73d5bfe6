"""Checkpoints, folders in diffusers' layout or hub ids: finding them, checking them, and what identifies their weights."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrun.adapters.checkpoint.index import AGAIN, INDEX, CheckpointError, components_of, index_of
from genrun.adapters.checkpoint.integrity import check_configurations, check_whole
from genrun.adapters.checkpoint.kinds import DENOISERS, VAE, refuse_kind
from genrun.adapters.checkpoint.lora import tensors_of
from genrun.adapters.checkpoint.parts import FILES
from genrun.adapters.checkpoint.strict import LoadError
from genrun.adapters.pipeline.families import Parts, parts_at

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
WEIGHTS = ".safetensors"
TEXTS = (".json", ".txt", ".model", ".jinja", ".vocab")
"""Suffixes of configurations and tokenizers; other files (README.md, pictures) change nothing."""

# All four are part of what identifies the weights: other numbers would change every item's id.
WHOLE_UP_TO_BYTES = 64 * 2**20
CHUNK_BYTES = 2**16
CHUNKS = 64
MAX_HEADER_BYTES = 100 * 2**20
"""The most that safetensors itself takes."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights that can be named.

    Attributes:
        name: the absolute folder, or the hub id.
        folder: the folder, or None for a hub id or a file.
        file: weights in one file, or None.
        config: of such a file, the folder with the configurations of its pipeline; or such a folder by itself.
    """

    name: str
    folder: Path | None
    file: Path | None = None
    config: Path | None = None

    @property
    def is_hub_id(self) -> bool:
        """True for what the hub has, on this machine or not."""
        return self.folder is None and self.file is None and self.config is None

    def fingerprint(self, revision: str | None) -> str:
        """Return what identifies the weights: of a folder or file its content, of a hub id its name and revision."""
        if self.file is not None:
            return fingerprint_of_file(self.file)
        if self.config is not None:
            return f"config:{_hash(self.config, TEXTS)}"
        return f"hub:{self.name}@{revision or 'main'}" if self.folder is None else fingerprint(self.folder)

    def index(self, revision: str | None) -> Mapping[str, Any] | None:
        """Read its model_index.json; of a hub id that of the hub's cache, None where it is not in it.

        Raises:
            ValueError: it cannot be read.
        """
        folder = self.local_folder(revision)
        return index_of(folder) if folder is not None and (folder / INDEX).is_file() else None

    def local_folder(self, revision: str | None) -> Path | None:
        """Return where its files are on this machine: the folder, or that of the hub's cache; None where they are not."""
        if not self.is_hub_id:
            return self.folder or self.config
        return cached_folder(self.name, revision)


def parts_of(checkpoint: Checkpoint, revision: str | None) -> Parts | None:
    """Tell what the files of a checkpoint say of its pipeline; None for a hub id that is not on this machine."""
    folder = checkpoint.local_folder(revision)

    def read(name: str) -> Any:
        try:
            return json.loads((folder / name).read_bytes()) if folder is not None else None
        except (OSError, ValueError, RecursionError):
            return None

    return None if folder is None else parts_at(read)


def locate(
    text: str,
    base: Path,
    variant: str | None = None,
    config: Path | None = None,
    without: Collection[str] = (),
) -> Checkpoint:
    """Find a checkpoint.

    Args:
        text: a folder or a file, relative to `base`, or a hub id "org/name". What exists wins.
        base: the folder of the file that names it.
        variant: of the weights files that a job asks for.
        config: of a file, the folder with the configurations of its pipeline.
        without: components that are not read.

    Raises:
        ValueError: it is none of them, or the folder is no diffusers pipeline of safetensors.
    """
    found = locate_part(text, base)
    if found.folder is not None:
        check_folder(found.folder, text, variant, without)
    elif found.file is not None:
        if config is None:
            wanted = "wanted a folder with a model_index.json, or a hub id"
            remedy = "For weights in one file say `config: FOLDER`, where its pipeline's configurations are"
            raise ValueError(f"{text!r} is a file; {wanted}. {remedy}.")
        try:
            tensors = tensors_of(found.file, repr(text))
            # With components beside it, a file may well hold one of them alone.
            kinds = [kind for kind in DENOISERS if kind != VAE or not without]
            refuse_kind(tensors, repr(text), "a checkpoint", kinds)
            check_configurations(config, without)
        except (OSError, CheckpointError) as error:
            raise ValueError(f"{str(error).rstrip('. ')}.") from error
        return Checkpoint(found.name, None, found.file, config.resolve())
    return found


def locate_part(text: str, base: Path) -> Checkpoint:
    """Find a folder or a file, relative to `base`, or a hub id; nothing in it is looked at.

    Raises:
        ValueError: it is none of them.
    """
    path = base / (Path.home() / text[2:] if text.startswith("~/") else text)
    try:
        is_folder, is_there = path.is_dir(), path.exists() or path.is_symlink()
    except OSError as error:
        raise ValueError(f"{text!r} cannot be looked at: {error.strerror}.") from error
    if is_folder:
        return Checkpoint(str(path.resolve()), path.resolve())
    if is_there:
        return Checkpoint(str(path.absolute()), None, path.absolute())
    if HUB_ID.fullmatch(text) and Path(text).suffix not in FILES:
        return Checkpoint(text, None)
    raise ValueError(f"{text!r} is neither a folder nor a hub id such as org/name.")


def cached_folder(hub_id: str, revision: str | None) -> Path | None:
    """Return the files of a hub id in the hub's cache, or None."""
    # By the cache's layout: huggingface_hub takes long to import.
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or Path(home, "hub")
    folder = Path(os.path.expandvars(cache)).expanduser() / f"models--{hub_id.replace('/', '--')}"
    wanted = revision or "main"
    try:
        reference = folder / "refs" / wanted
        commit = reference.read_text(encoding="ascii").strip() if reference.is_file() else wanted
        found = folder / "snapshots" / commit
        return found if commit and found.is_dir() else None
    except (OSError, ValueError):
        return None


def check_folder(folder: Path, name: str, variant: str | None = None, without: Collection[str] = ()) -> None:
    """Check that a folder is a diffusers pipeline with safetensors weights.

    Raises:
        ValueError: no model_index.json, no weights, weights in pickles alone, or a part that is missing or cut off.
    """
    if not os.path.lexists(folder / INDEX):
        remedy = "Write one with pipe.save_pretrained(folder), or name the folder that has it"
        raise ValueError(f"the folder {name!r} has no model_index.json, so it is no diffusers pipeline. {remedy}.")
    files = list(_files(folder))
    # Links that lead nowhere count: what they should lead to is missing, and is told by name below.
    safe = {path.parent for path in folder.rglob(f"*{WEIGHTS}")} | {
        path.parent for path in files if path.suffix == WEIGHTS
    }
    pickles = [path for path in files if path.suffix in PICKLES and path.parent not in safe]
    if pickles:
        weights = pickles[0].relative_to(folder).as_posix()
        remedy = "Convert it where you trust it: pipe.save_pretrained(folder, safe_serialization=True)"
        raise ValueError(f"{name!r} has weights as a pickle ({weights}), which can run code when it is read. {remedy}.")
    if not safe:
        raise ValueError(f"the folder {name!r} has no weights (*.safetensors). Download all of it.")
    try:
        check_whole(folder, index_of(folder), variant, without)
    except OSError as error:
        place = error.filename or folder
        raise ValueError(f"the folder {name!r} cannot be used: {place}: {error.strerror}.") from error
    except CheckpointError as error:
        command = (
            f" From the hub: hf download ORG/NAME --local-dir {shlex.quote(name)}." if error.remedy == AGAIN else ""
        )
        raise ValueError(f"the folder {name!r} cannot be used: {error}.{command}") from error


def fingerprint(folder: Path) -> str:
    """Hash what a folder's pipeline is made of: names, sizes, configurations and weights.

    A weights file of up to 64 MiB is read whole; of a larger one its header and 64 chunks of 64 KiB spread over the
    file are read, so that terabytes need not be: a change outside them goes unseen.

    Returns:
        "folder:" and 32 hex digits.
    """
    return f"folder:{_hash(folder, (*TEXTS, WEIGHTS))}"


def fingerprint_of_file(path: Path) -> str:
    """Hash a file of weights, as `fingerprint` does those of a folder, but not its name.

    Returns:
        "file:" and 32 hex digits.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size}\0".encode())
    for piece in _whole(path) if size <= WHOLE_UP_TO_BYTES else _sampled(path, size):
        digest.update(piece)
    return f"file:{digest.hexdigest()[:32]}"


def refuse_changed(contents: Mapping[str, str]) -> None:
    """Refuse files and folders that were changed since a job was planned: its items are named by what was in them then.

    Args:
        contents: path -> what `Checkpoint.fingerprint` returned for it; hub ids are not looked at.

    Raises:
        LoadError: one was.
    """
    kinds: dict[str, Callable[[Path], str]] = {
        "file": fingerprint_of_file,
        "folder": fingerprint,
        "config": lambda path: Checkpoint(str(path), None, config=path).fingerprint(None),
    }
    for name, content in contents.items():
        kind = kinds.get(content.partition(":")[0])
        # What is not there any more, loading says.
        if kind is not None and Path(name).exists() and kind(Path(name)) != content:
            message = f"{name} was changed since the job was submitted"
            raise LoadError(message, "Put it back, or submit the job again: its items are others then.")


def _hash(folder: Path, suffixes: Collection[str]) -> str:
    digest = hashlib.sha256()
    for path in sorted(_files(folder), key=lambda path: path.relative_to(folder).as_posix()):
        if path.suffix in suffixes:
            size = path.stat().st_size
            name = path.relative_to(folder).as_posix()
            digest.update(f"{name}\0{size}\0".encode(errors="surrogateescape"))
            for piece in _whole(path) if size <= WHOLE_UP_TO_BYTES else _sampled(path, size):
                digest.update(piece)
    return digest.hexdigest()[:32]


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder, and of components that are links to folders elsewhere."""
    roots = [folder, *(folder / name for name in _component_names(folder) if (folder / name).is_symlink())]
    for path in (path for root in roots for path in root.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file():
            yield path


def _component_names(folder: Path) -> list[str]:
    try:
        return [name for name in components_of(index_of(folder)) if Path(name).name == name]
    except ValueError:
        return []


def _whole(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(2**20):
            yield piece


def _sampled(path: Path, size: int) -> Iterator[bytes]:
    """Yield the header of a safetensors file (length in its first 8 bytes), and chunks from first to last byte."""
    with path.open("rb") as file:
        length = file.read(8)
        yield length
        if path.suffix == WEIGHTS:
            yield file.read(min(int.from_bytes(length, "little"), MAX_HEADER_BYTES))
        for index in range(CHUNKS):
            file.seek((size - CHUNK_BYTES) * index // (CHUNKS - 1))
            yield file.read(CHUNK_BYTES)
