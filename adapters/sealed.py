"""Safetensors files that tell whether they are whole: their metadata hold a hash of all that follows. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

SEAL = "sha256"
LENGTH_BYTES = 8
MOST_HEADER_BYTES = 100 << 20
"""More than safetensors itself allows."""


def check(path: Path, *, whole: bool = True) -> None:
    """Refuse a file that is not as it was written.

    Args:
        path: the file.
        whole: whether all of it is read, or its header and its length only.

    Raises:
        ValueError, KeyError, TypeError: it is damaged.
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ValueError("no file")
    with path.open("rb") as file:
        size = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if not 0 < size <= MOST_HEADER_BYTES:
            raise ValueError("no safetensors file")
        header = json.loads(file.read(size))
        metadata = header.pop("__metadata__")
        end = max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
        if path.stat().st_size != LENGTH_BYTES + size + end:
            raise ValueError("its length is not what its header says")
        if SEAL not in metadata and metadata.keys() != {"format", "structure"}:
            raise ValueError("its header is damaged")
        if not whole or SEAL not in metadata:
            return
        seal = metadata.pop(SEAL)
        digest = _begun(metadata, header)
        while part := file.read(1 << 20):
            digest.update(part)
    if digest.hexdigest() != seal:
        raise ValueError("its SHA-256 differs from the one in its header")


def sealed(metadata: dict[str, str], data: bytes) -> dict[str, str]:
    """Return the metadata of the safetensors file `data` with the hash of them, of its header, and of its tensors."""
    size = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    header = json.loads(data[LENGTH_BYTES:size])
    digest = _begun(header.pop("__metadata__"), header)
    digest.update(memoryview(data)[size:])
    return {**metadata, SEAL: digest.hexdigest()}


def _begun(metadata: dict[str, str], header: dict[str, Any]) -> hashlib._Hash:
    """Begin a hash with what a header says."""
    return hashlib.sha256(json.dumps([metadata, header], sort_keys=True).encode())
