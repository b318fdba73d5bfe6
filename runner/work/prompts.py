"""The stage that encodes prompts: once for a run, before anything is sampled, by one process; others find the files.

An encoding depends on what the pipeline hands to its text encoders and on these: on the texts, the model, and the options
of the call; not on seed, solver, steps or size.
"""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genrun.adapters import registry
from genrun.runner.plan import canonical
from genrun.runner.store.files import atomic_write, locked

if TYPE_CHECKING:
    from genrun.runner.plan import WorkItem
    from genrun.runner.store.folder import RunFolder

VERSION = 1
KEY_DIGITS = 32
OF_MODEL = ("adapter", "checkpoint", "fingerprint", "revision", "dtype", "quantization")
NOT_ENCODED = frozenset({"steps", "height", "width", "num_frames", "scheduler"})
"""Sampling fields that no text encoder is told of."""

EACH = "each"
"""`model.encode` of a job that wants the text encoders kept beside the model."""


@dataclass(frozen=True)
class PromptStage:
    """Encodings of the prompts of one run.

    Attributes:
        folder: the run, in which they are kept.
        items: the run's items; a stage encodes the prompts of all that share a model.
        device: where text encoders run.
        say: told what was done.
    """

    folder: RunFolder
    items: Sequence[WorkItem]
    device: str
    say: Callable[[str], None]

    def has(self, item: WorkItem) -> bool:
        """Whether the encodings of an item's prompt are there."""
        return self.folder.encodings_path(key_of(item)).is_file()

    def read(self, item: WorkItem) -> dict[str, Any]:
        """The encodings of an item's prompt, for `encode_once`.

        Raises:
            ValueError: the file is damaged.
            OSError: it cannot be read.
        """
        from genrun.adapters.embeddings import unpack

        path = self.folder.encodings_path(key_of(item))
        try:
            return unpack(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: {error}. Delete the file: it is made again") from error

    def run(self, item: WorkItem) -> None:
        """Encode an item's prompt, and with the same text encoders all that the run's items of its model still lack.

        Whoever comes while another process encodes waits for it, and finds the files. What goes wrong with the prompt
        of another item is left to that item.

        Raises:
            LoadError: the text encoders cannot be loaded.
            StoreError: the run cannot be written.
        """
        self.folder.encodings_lock.parent.mkdir(exist_ok=True)
        with locked(self.folder.encodings_lock):
            if self.has(item):
                return
            others = [other for other in self.items if other.model == item.model]
            wanted = {key_of(each): each for each in (item, *others)}
            missing = {key: each for key, each in wanted.items() if not self.folder.encodings_path(key).is_file()}
            self._encode(item, missing.values())

    def _encode(self, first: WorkItem, items: Iterable[WorkItem]) -> None:
        from genrun.adapters.loading import load_encoders

        started, adapter, model = time.monotonic(), registry.get(first.model["adapter"]), first.model
        pipe = load_encoders(
            adapter,
            model.get("checkpoint"),
            device=self.device,
            revision=model.get("revision"),
            holding=holding_of(first),
        )
        loaded = time.monotonic()
        made = sum(self._keep(pipe, item, is_first=item is first) for item in items)
        del pipe
        free(self.device)
        spent = time.monotonic() - loaded
        self.say(f"encoded {made} prompts in {spent:.1f} s, text encoders loaded in {loaded - started:.1f} s and freed")

    def _keep(self, pipe: Any, item: WorkItem, *, is_first: bool) -> bool:
        from genrun.adapters.embeddings import encode, pack
        from genrun.runner.work.engine import request_of

        try:
            data = pack(encode(pipe, registry.get(item.model["adapter"]), request_of(item)))
        except Exception as error:
            if is_first:
                raise
            self.say(f"{item.id}: its prompt could not be encoded: {type(error).__name__}: {error}")
            return False
        atomic_write(self.folder.encodings_path(key_of(item)), data)
        return True


def has_stage(item: WorkItem) -> bool:
    """Whether an item's model has a stage of its own for prompts: one with text encoders, unless told otherwise.

    Raises:
        LoadError: its checkpoint cannot be read.
    """
    from genrun.adapters.loading import has_encoding_stage

    model = item.model
    if model.get("encode") == EACH:
        return False
    adapter = registry.get(model["adapter"])
    return has_encoding_stage(adapter, model.get("checkpoint"), model.get("revision"), holding_of(item))


def holding_of(item: WorkItem) -> Any:
    """How the weights of an item's model are held."""
    from genrun.adapters.holding import Holding

    return Holding.of(item.model, registry.get(item.model["adapter"]).dtype)


def key_of(item: WorkItem) -> str:
    """A hash of all that the encodings of an item's prompt depend on."""
    model = {name: item.model.get(name) for name in OF_MODEL}
    sampling = {name: value for name, value in item.sampling.items() if name not in NOT_ENCODED}
    call = dict(registry.get(item.model["adapter"]).call)
    texts = [item.prompt, item.negative_prompt]
    return hashlib.sha256(canonical([VERSION, model, sampling, call, texts])).hexdigest()[:KEY_DIGITS]


def free(device: str) -> None:
    """Give back memory that nothing refers to any more."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
