"""Inputs of items as a worker holds them: read from the run, checked to be what was kept, and decoded once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from genrun.adapters.input_files import InputError, decode
from genrun.runner.store.inputs import read_kept

if TYPE_CHECKING:
    from PIL import Image

    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.folder import RunFolder

    Frames = Sequence[Image.Image]

MOST_BYTES = 2 * 2**30
"""Bytes of decoded pictures that are kept: more than the largest clip has, and than most runs name in all."""


class DecodedInputs:
    """Decodes the pictures and clips of items, and keeps those that were used last.

    Args:
        folder: the run that keeps them; None where there is none, so that items with inputs cannot be made.
        most_bytes: how much is kept.
    """

    def __init__(self, folder: RunFolder | None, most_bytes: int = MOST_BYTES) -> None:
        self._folder, self._most_bytes = folder, most_bytes
        self._kept: OrderedDict[str, Frames] = OrderedDict()
        self.decoded = 0

    def of(self, item: WorkItem) -> dict[str, list[Frames]]:
        """Return field -> files, each by its frames.

        Raises:
            InputError: one is lost, or not what was kept.
        """
        return {field: [self._frames(field, file) for file in files] for field, files in item.inputs.items()}

    def _frames(self, field: str, file: dict[str, str]) -> Frames:
        sha256 = file["sha256"]
        if sha256 not in self._kept:
            if self._folder is None:
                raise InputError(f"{field} {file.get('name', '')!r}: there is no run that keeps it")
            self._kept[sha256] = decode(read_kept(self._folder, field, file))
            self.decoded += 1
        self._kept.move_to_end(sha256)
        while len(self._kept) > 1 and sum(map(_bytes, self._kept.values())) > self._most_bytes:
            self._kept.popitem(last=False)
        return self._kept[sha256]


def _bytes(frames: Frames) -> int:
    return sum(3 * frame.width * frame.height for frame in frames)
