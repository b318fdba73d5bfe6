"""Inputs of a run: copies of the pictures and clips that its prompts name, kept by the hash of their bytes.

Copies, so that a run can be gone on with, repeated, shown and moved without the files that it was made from, and so that one
of these that is changed later is never taken for what it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from genrun.adapters.input_files import InputError, InputFile, read
from genrun.runner.errors import RunError
from genrun.runner.store.files import sha256_of, staged, write_error

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.folder import RunFolder

AGAIN = "Submit the job again where its file is as it was: genrun submit JOB"


def keep(folder: RunFolder, files: Iterable[InputFile]) -> list[str]:
    """Copy files into a run where they are not there as they were; return a line about each that is put back.

    Raises:
        RunError: one has changed since the job was read.
        StoreError: the run cannot be written.
    """
    notes = []
    for file in files:
        target = folder.path / name_of(file.sha256, file.suffix)
        if is_kept(target, file.sha256):
            continue
        if target.exists():
            notes.append(f"{folder.relative(target)} was not the file that was kept. It was written again.")
        try:
            data = read(file.path)
        except InputError as error:
            raise RunError(f"{file.path}: {error}.", remedy="Restore it, and submit the job again.") from error
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise RunError(f"{file.path}: was changed while the job was read.", remedy="Submit the job again.")
        try:
            with staged(target) as temporary:
                temporary.write_bytes(data)
        except OSError as error:
            raise write_error(target, error) from error
    return notes


def name_of(sha256: str, suffix: str) -> str:
    """Return where a run keeps a picture or clip, relative to its folder."""
    return f"inputs/{sha256[:2]}/{sha256}{suffix}"


def is_kept(path: Path, sha256: str) -> bool:
    """Tell whether a file is there, with that hash."""
    try:
        return sha256_of(path) == sha256
    except OSError:
        return False


def read_kept(folder: RunFolder, field: str, file: Mapping[str, str]) -> bytes:
    """Return the bytes of an item's input.

    Args:
        folder: the run.
        field: of the prompt, for messages.
        file: as the item stores it.

    Raises:
        InputError: it is lost, or not the file that was kept.
    """
    path = folder.path / name_of(file["sha256"], file["suffix"])
    told = f"{field} {file.get('name', '')!r}"
    try:
        data = read(path)
    except InputError as error:
        raise InputError(f"{told}: {path}: {error}", f"{AGAIN}.") from error
    if hashlib.sha256(data).hexdigest() != file["sha256"]:
        raise InputError(f"{told}: {path} is not the file that was kept: its SHA-256 differs", f"{AGAIN}.")
    return data


def kept_files(items: Iterable[WorkItem]) -> dict[tuple[str, str], str]:
    """Return (hash, suffix) -> a name to show, of all inputs of items."""
    found: dict[tuple[str, str], str] = {}
    for item in items:
        for files in item.inputs.values():
            for file in files:
                found.setdefault((file["sha256"], file["suffix"]), file.get("name", ""))
    return found
