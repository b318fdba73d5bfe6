"""The stage that encodes prompts, once for a run, for others to read; and inputs of items, read and decoded once.

An encoding depends on what the pipeline hands to its text encoders and on these: on the texts, the model, and the options
of the call; not on seed, solver, steps or size.
"""

from __future__ import annotations

import hashlib
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.adapters import registry, tensor_files
from genrun.adapters.input_files import InputError, decode
from genrun.adapters.pipeline.additions import CONTENTS, SWAPPED, base_of
from genrun.adapters.pipeline.load_options import LoadOptions
from genrun.runner.store.files import atomic_write, locked
from genrun.runner.store.planfile import read_kept
from genrun.runner.strict_json import canonical
from genrun.runner.worker.rank import release_memory

if TYPE_CHECKING:
    from PIL import Image

    from genrun.adapters.pipeline.encoders import Cut
    from genrun.adapters.sampling.call import SamplingRequest
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.folder import RunFolder

    Frames = Sequence[Image.Image]


VERSION = 1
"""Version of what is kept, a part of each key: files of another version are not found."""

KEY_DIGITS = 32
"""Hexadecimal digits of a key: 128 bits, so that no two prompts of a run share one."""

LOCK_POLL_S = 0.2
"""Seconds between two tries of a lock that another rank holds while it encodes, which takes seconds to minutes."""

DAMAGED = (ValueError, TypeError, LookupError, AttributeError)
"""Exceptions on reading a file that is not as it was written."""

OF_MODEL = ("adapter", "checkpoint", "fingerprint", "revision", "dtype", "quantization")
ADDED = ("components", "config", CONTENTS)
"""Further keys of a model that change encodings, hashed where they are set; LoRAs of text encoders have no stage."""

WITH_PICTURES = ("task", "controlnet", "t2i_adapter", "ip_adapter")
"""Keys of a model whose pipeline's call has pictures."""

NOT_ENCODED = frozenset({"steps", "height", "width", "num_frames", "scheduler"})
"""Sampling fields that no text encoder is told of."""

EACH = "each"
"""Value of `model.encode` that keeps the text encoders loaded together with the model."""


@dataclass(frozen=True)
class PromptStage:
    """Encodings of the prompts of one run.

    Attributes:
        folder: the run, in which they are kept.
        items: the run's items; a stage encodes the prompts of all that share a model.
        device: where text encoders run.
        say: told what was done.
        failures: why calls were refused, or prompts could not be encoded; each is told once.
    """

    folder: RunFolder
    items: Sequence[WorkItem]
    device: str
    say: Callable[[str], None]
    failures: dict[bytes, Exception] = field(default_factory=dict)

    def has(self, item: WorkItem) -> bool:
        """Return True when the encodings of an item's prompt are there, and whole as far as the file's head tells."""
        return is_whole(self.folder.encodings_path(key_of(item)))

    def read(self, item: WorkItem) -> dict[str, Any]:
        """Return the encodings of an item's prompt, for `encode_once`.

        Raises:
            ValueError: the file is damaged; it is removed, so that the next attempt makes it again.
            OSError: it cannot be read.
        """
        from genrun.adapters.sampling.embeddings import unpack

        path = self.folder.encodings_path(key_of(item))
        try:
            tensor_files.check(path)
            return unpack(path.read_bytes())
        except DAMAGED as error:
            path.unlink(missing_ok=True)
            raise ValueError(f"{path}: {error}. The file was removed: the next attempt makes it again") from error

    def cut(self, item: WorkItem) -> tuple[Cut, ...]:
        """Return what the text encoders did not see of an item's prompt.

        Raises:
            ValueError: the file is damaged.
            OSError: it cannot be read.
        """
        from genrun.adapters.sampling.embeddings import cut_in

        return cut_in(self.folder.encodings_path(key_of(item)))

    def run(self, item: WorkItem) -> None:
        """Encode an item's prompt, and with the same text encoders all that the run's items of its model still lack.

        Whoever comes while another process encodes waits for it, and finds the files. A prompt that cannot be encoded fails
        its own items and no others.

        Raises:
            LoadError: the text encoders cannot be loaded.
            StoreError: the run cannot be written.
            Exception: what the pipeline raised for the item's own prompt.
        """
        # Told once without loading the text encoders for it again; a second attempt is made in earnest.
        self._raise_failure(item)
        self.folder.encodings_lock.parent.mkdir(exist_ok=True)
        with locked(self.folder.encodings_lock, LOCK_POLL_S):
            if self.has(item):
                return
            self._encode(item, self._missing(item))
        if not self.has(item):
            self._raise_failure(item)

    def _raise_failure(self, item: WorkItem) -> None:
        failure = self.failures.pop(_call(item), None)
        if failure is not None:
            raise failure

    def _missing(self, first: WorkItem) -> list[list[WorkItem]]:
        """Return the items of the model of `first` that wait for encodings, by encoding, `first` to begin with."""
        missing: dict[str, list[WorkItem]] = {}
        base = base_of(first.model)
        alike = (other for other in self.items if base_of(other.model) == base and not other.inputs)
        others = (other for other in alike if other.id != first.id)
        for item in (first, *others):
            key = key_of(item)
            if key in missing or not is_whole(self.folder.encodings_path(key)):
                missing.setdefault(key, []).append(item)
        return list(missing.values())

    def _encode(self, first: WorkItem, missing: Sequence[Sequence[WorkItem]]) -> None:
        from genrun.adapters.pipeline.loading import load_encoders

        started, adapter, model = time.monotonic(), registry.get(first.model["adapter"]), first.model
        pipe = load_encoders(
            adapter,
            model.get("checkpoint"),
            device=self.device,
            revision=model.get("revision"),
            load_options=load_options_of(first),
        )
        loaded = time.monotonic()
        made = sum(self._keep(pipe, items) for items in missing)
        del pipe
        release_memory(self.device)
        spent = time.monotonic() - loaded
        self.say(f"encoded {made} prompts in {spent:.1f} s, text encoders loaded in {loaded - started:.1f} s and freed")

    def _keep(self, pipe: Any, items: Sequence[WorkItem]) -> bool:
        """Encode a prompt by the call of the first of its items that the pipeline does not refuse.

        What an encoding does not depend on, such as the size, may still be refused by the call: that is the failure of the
        item that asks for it, and no reason for another item to go without.
        """
        from genrun.adapters.pipeline.encoders import cuts, watching
        from genrun.adapters.sampling.embeddings import encode, pack

        calls: dict[bytes, WorkItem] = {}
        for item in items:
            # Seeds and solvers make no difference to it.
            calls.setdefault(_call(item), item)
        for call, item in calls.items():
            try:
                with watching(pipe, item.sampling.get("options")) as seen:
                    encodings = encode(pipe, registry.get(item.model["adapter"]), request_of(item))
                data = pack(encodings, cuts(seen, item.prompt, item.negative_prompt))
            except Exception as error:
                told = "".join(traceback.format_exception(error)).rstrip()
                self.say(f"{item.id}: its prompt could not be encoded: {type(error).__name__}: {error}\n{told}")
                # Tracebacks would keep the text encoders in memory.
                error.__context__ = error.__cause__ = None
                self.failures[call] = error.with_traceback(None)
                continue
            atomic_write(self.folder.encodings_path(key_of(item)), data)
            return True
        return False


def is_whole(path: Path) -> bool:
    """Return True when a file of encodings is there, and as long as its head says."""
    try:
        tensor_files.check(path, whole=False)
    except (OSError, *DAMAGED):
        return False
    return True


def _call(item: WorkItem) -> bytes:
    """Return all of an item that its pipeline's call depends on, up to the first step."""
    return canonical([key_of(item), item.sampling])


def has_stage(item: WorkItem) -> bool:
    """Return True when an item's prompt is encoded in a stage: its model has text encoders, and it has no pictures.

    Raises:
        LoadError: its checkpoint cannot be read.
    """
    from genrun.adapters.pipeline.loading import has_encoding_stage

    model = item.model
    # Many pipelines encode a prompt together with its pictures, or encode these with their VAE before it.
    has_pictures = bool(item.inputs) or any(model.get(name) for name in WITH_PICTURES)
    if model.get("encode") == EACH or has_pictures:
        return False
    if model.get(SWAPPED):
        from genrun.adapters.pipeline.parts import changes_encoders

        # With it the text encoders change, which then stay beside the model.
        if any(map(changes_encoders, load_options_of(item).additions.loras)):
            return False
    adapter = registry.get(model["adapter"])
    return has_encoding_stage(adapter, model.get("checkpoint"), model.get("revision"), load_options_of(item))


def request_of(item: WorkItem) -> SamplingRequest:
    """Return what generates an item, besides the model and the solver."""
    from genrun.adapters.sampling.call import SamplingRequest

    return SamplingRequest(item.prompt, item.seed, item.sampling, item.negative_prompt)


def load_options_of(item: WorkItem) -> LoadOptions:
    """Return how the weights of an item's model are held."""
    return LoadOptions.of(item.model, registry.get(item.model["adapter"]).dtype)


def key_of(item: WorkItem) -> str:
    """Return a hash of all that the encodings of an item's prompt depend on."""
    model = {name: item.model.get(name) for name in OF_MODEL}
    # Not hashed where it is not set: runs that were begun before there were variants keep their encodings.
    base = base_of(item.model)
    model |= {name: base[name] for name in ("variant", *ADDED) if base.get(name)}
    sampling = {name: value for name, value in item.sampling.items() if name not in NOT_ENCODED}
    call = dict(registry.get(item.model["adapter"]).call)
    texts = [item.prompt, item.negative_prompt]
    return hashlib.sha256(canonical([VERSION, model, sampling, call, texts])).hexdigest()[:KEY_DIGITS]


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
