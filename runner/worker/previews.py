"""Previews of the item in work, drawn in a thread beside the sampling; never worth an item's failure."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from genrun.adapters.files import read_bounded
from genrun.adapters.pipeline.additions import base_of
from genrun.runner.store.files import atomic_write, temporary_name
from genrun.runner.store.previews import colours_path, preview_path
from genrun.runner.worker.rank import say

if TYPE_CHECKING:
    from torch import Tensor

    from genrun.adapters.adapter import Adapter
    from genrun.adapters.sampling.preview import ColourMap, TinyDecoder
    from genrun.adapters.scheduler.rows import CallProgress
    from genrun.adapters.shapes import AnyFrames
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.folder import RunFolder

INTERVAL_S = 2.0
"""Seconds between two previews, at least."""

SHARE = 200
"""Previews take this part of the time at most."""

FITTED_ITEMS = 8
"""Decoded items that colours are fitted on: more would hardly change them."""

MOST_MAP_BYTES = 2**20
QUALITY = 85


class Previews:
    """The previews of a rank that leads.

    Args:
        folder: the run.
        wanted: the job's `output.previews`.
        device: where latents are.
        threads: of torch, in a thread that draws.
    """

    def __init__(self, folder: RunFolder, wanted: Mapping[str, Any], device: str, threads: int) -> None:
        self._folder, self._threads = folder, threads
        self._every = wanted.get("every") or 1
        self._decoder: TinyDecoder | None = None
        self._maps: dict[str, ColourMap] = {}
        self._lock = threading.Lock()
        self._drawing: threading.Thread | None = None
        self._item = ""
        self._place: Callable[[Tensor], Tensor | None] = lambda latents: None
        self._model = ""
        self._next_at, self._next_round = 0.0, 0
        self._is_broken = False
        if wanted.get("decoder"):
            from genrun.adapters.sampling.preview import TinyDecoder

            try:
                self._decoder = TinyDecoder(wanted["decoder"], device)
            except Exception as error:
                self._give_up(error)

    @contextmanager
    def of(self, item: WorkItem, pipe: Any, adapter: Adapter) -> Iterator[None]:
        """Draw an item while it is sampled, inside a with block."""
        from genrun.adapters.sampling.preview import Clip, channels_of, places

        key = model_key(item)
        seen = self._maps.get(key)
        if self._decoder is None and (seen is None or seen.items < FITTED_ITEMS):
            kept = self._kept(key)
            if kept is not None and (seen is None or kept.items > seen.items):
                self._maps[key] = kept
        sampling, channels = adapter.resolve(item.sampling), channels_of(pipe)
        height, width = sampling.get("height"), sampling.get("width")
        clip = Clip(sampling.get("num_frames") or 1, height, width) if height and width else None
        self._item, self._model = item.id, key
        self._place = lambda latents: places(latents, clip, channels)
        self._next_at, self._next_round = max(self._next_at, time.monotonic() + INTERVAL_S), 0
        try:
            yield
        finally:
            with self._lock:
                self._item = ""

    def offer(self, progress: CallProgress) -> None:
        """Draw a round's x0-prediction, unless the last one was drawn a moment ago; returns at once."""
        is_due = time.monotonic() >= self._next_at and progress.rounds >= self._next_round
        is_drawing = self._drawing is not None and self._drawing.is_alive()
        if not is_due or is_drawing or self._is_broken or progress.predict_x0 is None:
            return
        colours = self._maps.get(self._model)
        if not self._item or (self._decoder is None and colours is None):
            return
        self._next_round = progress.rounds + self._every
        x0, step = progress.predict_x0(), (progress.front, progress.num_steps)
        # Not a daemon: one that computes while the interpreter ends would bring it down.
        self._drawing = threading.Thread(
            target=self._draw, args=(self._item, self._place, colours, x0, step), name="preview"
        )
        self._drawing.start()

    def learn(self, item: WorkItem, pipe: Any, latents: Tensor, frames: AnyFrames) -> None:
        """Fit the colours of an item's model on its final latents and what they were decoded to, as well."""
        from genrun.adapters.sampling.preview import MOST_CHANNELS, Clip, ColourMap, channels_of, places

        key = model_key(item)
        seen = self._maps.get(key)
        if self._decoder is not None or self._is_broken or (seen is not None and seen.items >= FITTED_ITEMS):
            return
        try:
            where = places(latents, Clip.of(frames), channels_of(pipe))
            if where is None or where.shape[-1] > MOST_CHANNELS:
                return
            if seen is None or seen.channels != where.shape[-1]:
                seen = ColourMap.empty(where.shape[-1])
            self._maps[key] = seen.and_of(where, frames)
            self._keep(key, self._maps[key])
        except Exception as error:
            self._give_up(error)

    def _draw(
        self,
        item_id: str,
        place: Callable[[Tensor], Tensor | None],
        colours: ColourMap | None,
        x0: Tensor,
        step: tuple[int, int],
    ) -> None:
        import torch

        torch.set_num_threads(self._threads)  # each thread of Python has its own number
        began = time.monotonic()
        try:
            with torch.no_grad():
                where = place(x0)
                picture = None
                if where is not None and self._decoder is not None:
                    picture = self._decoder.picture(where)
                elif where is not None and colours is not None and where.shape[-1] == colours.channels:
                    picture = colours.picture(where)
            if picture is not None:
                self._put(item_id, as_jpeg(picture, step))
        except Exception as error:
            self._give_up(error)
        now = time.monotonic()
        self._next_at = now + max(INTERVAL_S, SHARE * (now - began))

    def _put(self, item_id: str, data: bytes) -> None:
        path = preview_path(self._folder, item_id)
        temporary = temporary_name(path)
        try:
            temporary.write_bytes(data)
            with self._lock:
                # One that came late would be left behind: the item's lease goes, and its preview with it.
                if self._item == item_id:
                    temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _kept(self, key: str) -> ColourMap | None:
        """Return the map that this worker or another one has kept; None where there is none that can be used."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        from genrun.adapters.files import TooLargeError
        from genrun.adapters.sampling.preview import ColourMap

        try:
            return ColourMap.from_tensors(load(read_bounded(colours_path(self._folder, key), MOST_MAP_BYTES)))
        except (OSError, ValueError, SafetensorError, TooLargeError):
            return None

    def _keep(self, key: str, colours: ColourMap) -> None:
        from safetensors.torch import save

        atomic_write(colours_path(self._folder, key), save(colours.tensors()))

    def _give_up(self, error: Exception) -> None:
        self._is_broken = True
        say(f"no more previews: {type(error).__name__}: {error}")


def model_key(item: WorkItem) -> str:
    """Return a hash of what makes an item's latents mean what they do: its model but for LoRAs."""
    return hashlib.sha256(json.dumps(base_of(item.model), sort_keys=True).encode()).hexdigest()[:20]


def as_jpeg(picture: AnyFrames, step: tuple[int, int]) -> bytes:
    """Return a preview, (H, W, 3), as a JPEG with its step as the comment, no longer than `MOST_PX` on a side."""
    from PIL import Image

    from genrun.adapters.sampling.preview import MOST_PX

    image = Image.fromarray(picture)
    image.thumbnail((MOST_PX, MOST_PX))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, comment=json.dumps(step).encode())
    return file.getvalue()
