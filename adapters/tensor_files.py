"""Safetensors files: headers, read without loading tensors, and the checksum in those that genrun writes. Imports no torch.

The only place that parses headers. huggingface_hub's `parse_local_safetensors_file_metadata` (2.4) is no substitute: it
compares neither offsets nor the file's length with the header, so that a file cut off in its tensors passes; it drops bytes
that are no UTF-8, lets TypeError and RecursionError out on hostile JSON, refuses headers above 25 MB where safetensors has
100, and importing it takes about as long as all of `genrun validate`.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

LENGTH_BYTES = 8

# What safetensors itself allows. A length above it is not believed, and so many bytes are never read.
MAX_HEADER_BYTES = 100_000_000

CHECKSUM = "sha256"
"""Entry of the metadata that holds the checksum."""

CHUNK_BYTES = 2**20

BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}
"""Bits of a number, by dtype as safetensors names it."""


@dataclass(frozen=True)
class Tensor:
    """A tensor in a safetensors file, as its header describes it.

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
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """A header: its JSON as it stands, the metadata apart.

    Attributes:
        size_bytes: of the header with its length in front, which is where the tensors begin.
        metadata: texts by name; None where there are none.
        entries: tensor -> dtype, shape and data_offsets, unchecked.
    """

    size_bytes: int
    metadata: Any
    entries: dict[str, Any]


def read_header(file: BinaryIO) -> Header:
    """Read the header from the beginning of a file, and nothing behind it.

    Raises:
        ValueError: it is no safetensors file.
    """
    prefix = file.read(LENGTH_BYTES)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < LENGTH_BYTES or length > MAX_HEADER_BYTES:
        raise ValueError("it is no safetensors file")
    try:
        entries = json.loads(file.read(length).decode("utf-8"))
        metadata = entries.pop("__metadata__", None)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("it is no safetensors file, or only its beginning") from error
    return Header(LENGTH_BYTES + length, metadata, entries)


def tensors_in(path: Path) -> dict[str, Tensor]:
    """Read the tensors in a safetensors file, by name, from its header.

    Raises:
        ValueError: it is no such file, or shorter or longer than its header says.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header = read_header(file)
    entries = {name: _tensor(name, entry) for name, entry in header.entries.items()}
    end = 0
    for name, (begin, next_end, _) in sorted(entries.items(), key=lambda item: item[1][:2]):
        if begin != end:
            raise ValueError(f"its header puts the tensor {name!r} at byte {begin:,}, where {end:,} was due")
        end = next_end
    expected = header.size_bytes + end
    if size != expected:
        raise ValueError(f"it has {size:,} bytes of {expected:,}")
    return {name: tensor for name, (_, _, tensor) in entries.items()}


def check(path: Path, *, whole: bool = True) -> None:
    """Refuse a file of genrun's that is not as it was written.

    Args:
        path: the file.
        whole: compare the checksum, for which all of it is read; else its header and its length only.

    Raises:
        ValueError, KeyError, TypeError: it is damaged.
        OSError: it cannot be read.
    """
    if path.exists() and not path.is_file():
        raise ValueError("no file")
    with path.open("rb") as file:
        header = read_header(file)
        metadata = header.metadata
        end = max((tensor["data_offsets"][1] for tensor in header.entries.values()), default=0)
        if path.stat().st_size != header.size_bytes + end:
            raise ValueError("its length is not what its header says")
        # Encodings of the first format have no checksum, and these two entries alone.
        if CHECKSUM not in metadata and metadata.keys() != {"format", "structure"}:
            raise ValueError("its header is damaged")
        if not whole or CHECKSUM not in metadata:
            return
        written = metadata.pop(CHECKSUM)
        digest = _hash_of(metadata, header.entries)
        while part := file.read(CHUNK_BYTES):
            digest.update(part)
    if digest.hexdigest() != written:
        raise ValueError("its SHA-256 differs from the one in its header")


def with_checksum(metadata: dict[str, str], data: bytes) -> dict[str, str]:
    """Return `metadata` with the hash of what the safetensors file `data` holds: metadata, header and tensors."""
    import io

    header = read_header(io.BytesIO(data))
    digest = _hash_of(header.metadata, header.entries)
    digest.update(memoryview(data)[header.size_bytes :])
    return {**metadata, CHECKSUM: digest.hexdigest()}


def _hash_of(metadata: dict[str, str], entries: dict[str, Any]) -> hashlib._Hash:
    return hashlib.sha256(json.dumps([metadata, entries], sort_keys=True).encode())


def _tensor(name: str, entry: Any) -> tuple[int, int, Tensor]:
    """Return where the bytes of a tensor begin and end, and its description. Raises ValueError."""
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
