"""Devices, frames and file hashes of metrics with weights of the user's."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from genrun.adapters.shapes import RgbFrames, SomeFrames

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["float32", "bfloat16", "float16"]
# Larger files, such as weights, are told apart by size and ends, so that scoring need not read gigabytes.
WHOLE_UP_TO_BYTES = 64 * 2**20
ENDS_BYTES = 2**20


def device_of(device: Device) -> str:
    """Choose the device: `auto` is the GPU where there is one."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def spread(frames: RgbFrames, count: int) -> SomeFrames:
    """Pick at most `count` frames, evenly spaced over a clip, in the middle of as many equal stretches.

    Args:
        frames: (T, H, W, 3).
        count: how many.
    """
    import numpy as np

    if len(frames) <= count:
        return frames
    return frames[((np.arange(count) + 0.5) * len(frames) / count).astype(int)]


def identity(path: Path) -> str:
    """Hash a file or folder for the key of the cache; "missing" when there is none.

    Names, sizes and content; of a file above 64 MiB its first and last MiB, so that scoring need not read gigabytes.
    """
    if not path.exists():
        return "missing"
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    for file in files:
        name = file.name if file == path else file.relative_to(path).as_posix()
        digest.update(f"{name}\0{file.stat().st_size}\0".encode(errors="surrogateescape"))
        _add_content(digest, file)
    return digest.hexdigest()[:32]


def _add_content(digest: hashlib._Hash, file: Path) -> None:
    size = file.stat().st_size
    with file.open("rb") as stream:
        if size <= WHOLE_UP_TO_BYTES:
            digest.update(stream.read())
            return
        digest.update(stream.read(ENDS_BYTES))
        stream.seek(size - ENDS_BYTES)
        digest.update(stream.read())
