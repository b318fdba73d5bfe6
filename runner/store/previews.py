"""Previews of items in work, as whoever looks on finds them: small pictures that are gone when their items are done."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.adapters.files import TooLargeError, read_bounded
from genrun.runner.errors import UnreadableError
from genrun.runner.store.lease import SHOWN, holdings, looks_alive

if TYPE_CHECKING:
    from genrun.runner.store.folder import RunFolder

MAX_BYTES = 2**18
MAX_SIDE = 1024
MAX_STEPS = 2**31


FOLDER = "previews"
"""Of a run: the maps from latents to colours."""


def preview_path(folder: RunFolder, item_id: str) -> Path:
    """Return where the worker draws an item in work, absolute."""
    return folder.leases / f".{item_id}{SHOWN[-1]}"


def colours_path(folder: RunFolder, key: str) -> Path:
    """Return where the map from a model's latents to colours lies, absolute; `key` is a hash of the model."""
    return folder.path / FOLDER / f"{key}.safetensors"


@dataclass(frozen=True)
class ItemPreview:
    """A preview.

    Attributes:
        path: its file, which is gone when its item is done; absolute.
        data: a JPEG.
        step: final states of the item when it was drawn.
        steps: N.
    """

    path: Path
    data: bytes
    step: int
    steps: int


def read_preview(folder: RunFolder, item_id: str) -> ItemPreview | None:
    """Return the preview of an item in work, or None when there is none that can be shown."""
    from PIL import Image

    path = preview_path(folder, item_id)
    try:
        data = read_bounded(path, MAX_BYTES)
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            step, steps = json.loads(picture.info.get("comment", b""))
            is_right = type(step) is type(steps) is int and 0 <= step <= steps <= MAX_STEPS
            return ItemPreview(path, data, step, steps) if is_right and max(picture.size) <= MAX_SIDE else None
    except (OSError, ValueError, TypeError, SyntaxError, TooLargeError):
        return None


def in_work(folder: RunFolder) -> frozenset[str]:
    """Return the items whose makers seem to be alive, as far as their leases can be read."""
    now = time.time_ns()
    try:
        return frozenset(item_id for item_id, holding in holdings(folder).items() if looks_alive(holding, now))
    except UnreadableError:
        return frozenset()


def why_none(folder: RunFolder, document: Mapping[str, Any]) -> str:
    """Say why items in work have no preview yet; "" where they have, or where the job, `document`, asks for none."""
    wanted = (document.get("output") or {}).get("previews")
    if not wanted or wanted.get("decoder") or any((folder.path / FOLDER).glob("*.safetensors")):
        return ""
    return "Previews begin when the first item is decoded: their colours are fitted on it."
