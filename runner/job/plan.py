"""The items of a job: one for each prompt, seed and cell of the matrix, named by what decides their pixels."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.adapters.checkpoint.index import changes_weights
from genrun.adapters.pipeline.additions import CONTENTS
from genrun.runner.job import certificates
from genrun.runner.job.certificates import conditions_of_cell, hash_of_prompts, identity_of_model, own_conditions
from genrun.runner.job.errors import JobProblem, Origin, raise_all
from genrun.runner.job.files import as_stored, identity, wrong_stored
from genrun.runner.strict_json import canonical

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

    from genrun.runner.job.cell import Cell
    from genrun.runner.job.prompt_files import Prompt
    from genrun.runner.job.resolve import LoadedJob

IDENTITY_VERSION = 1
"""Hashed with every item: raising it makes users generate everything again."""

ID_DIGITS = 20
"""Hexadecimal digits of a SHA-256 in an id: with 80 bits, two of a million items are alike with a chance of 4e-13."""

MAX_ITEMS = 1_000_000
"""A run folder has a file for each of them, and is looked through whenever a command asks how far it is."""

NATIVE, NO_CACHE, SEQUENTIAL = "native", "none", "sequential"
HOW = ("solver", "cache", "attention")
"""Sections that decide how an item is computed, and not what it shows."""

LATER = ("cache", "attention", "inputs", "row", "promise", "audit")
"""Fields that items of earlier versions lack."""

IF_THERE = ("inputs", "row", "promise", "audit")
"""Fields that are stored only where they say something."""

TYPES: dict[str, Any] = {
    **dict.fromkeys(("id", "pair", "prompt", "attention"), str),
    **dict.fromkeys(("model", "sampling", "solver", "axes", "cache", "inputs", "row"), dict),
    "negative_prompt": str | None,
    "seed": int,
    "promise": dict,
}
"""The types of an item's fields."""

_SAFE_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")
"""Ids become the names of files."""

HELD = {"offload", "vae", "compile", "quantization", "encode", "variant"}
"""Keys of `model` that say how its weights are held; stored with an item where the job sets them."""


@dataclass(frozen=True)
class WorkItem:
    """A picture or clip to make.

    Attributes:
        id: 20 hex digits of a hash of everything that changes the pixels: the adapter, the checkpoint's fingerprint
            and dtype, the VAE's tiling, compilation, quantisation, what is added to the checkpoint, prompt, negative
            prompt, seed, inputs, sampling, solver, cache and attention; and of nothing else.
        pair: the same hash without the last three: items of one pair differ in how they are computed only.
        prompt: the text, byte for byte.
        negative_prompt: its own or the job's, or None.
        seed: of the initial noise.
        model: adapter, checkpoint (absolute folder or hub id), fingerprint, revision, dtype, device; and of
            offload, vae, compile, quantization, encode and what is added to the checkpoint those that are set.
        sampling: steps, guidance_scale, height, width, num_frames, scheduler, options: those that are set.
        solver: kind and every option.
        axes: matrix axis -> short label.
        cache: kind and every option; empty for none.
        attention: the kernel.
        inputs: field of the prompt -> its pictures or clips: {"sha256", "suffix", "name"} each, of which the first counts.
        row: fields that the prompt had of its own: its name, strength, and fields of sampling.
        promise: of its cell's tolerance: state, tolerance, confidence and the certificate; empty where none was asked for
            and none is there. Not hashed, as the setting that follows from it is.
        audit: True for an item that is compared with the sequential sampler's, and for that one. Not hashed either.
    """

    id: str
    pair: str
    prompt: str
    negative_prompt: str | None
    seed: int
    model: dict[str, Any]
    sampling: dict[str, Any]
    solver: dict[str, Any]
    axes: dict[str, str] = field(default_factory=dict)
    cache: dict[str, Any] = field(default_factory=dict)
    attention: str = NATIVE
    inputs: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    row: dict[str, Any] = field(default_factory=dict)
    promise: dict[str, Any] = field(default_factory=dict)
    audit: bool = False

    @property
    def is_reference(self) -> bool:
        """True when the others of its pair are compared with it: sequential, computed in full."""
        return self.solver["kind"] == SEQUENTIAL and not self.cache and self.attention == NATIVE

    @property
    def own(self) -> str:
        """Inputs and fields of its own prompt, as text, which tell it from others of the same text; "" without any."""
        row = {name: value for name, value in self.row.items() if name != "name"}
        return canonical([identity(self.inputs), row]).decode() if self.inputs or row else ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, keys in the order of the fields."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in found.items() if value or name not in IF_THERE}

    def to_json(self) -> str:
        """Return one line of ASCII."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_dict(cls, data: Any) -> WorkItem:
        """Return the item of plain data; the inverse of `to_dict`.

        Raises:
            ValueError: the data are no item that a plan could hold.
        """
        if not isinstance(data, dict) or {*data, *LATER} != set(cls.__dataclass_fields__):
            names = ", ".join(sorted(each.name for each in fields(cls)))
            raise ValueError(f"not an item: wanted an object with {names}")
        for name, kind in TYPES.items():
            if name in data and (not isinstance(data[name], kind) or isinstance(data[name], bool)):
                raise ValueError(f"not an item: its {name} is {data[name]!r:.60}, and wanted is another type")
        if type(data.get("audit", False)) is not bool:
            raise ValueError(f"not an item: its audit is {data['audit']!r:.60}, and wanted is true or false")
        item = cls(**data)
        for name in ("id", "pair"):
            if not _SAFE_ID.fullmatch(data[name]):
                wanted = f"{ID_DIGITS} hexadecimal digits"
                raise ValueError(f"its {name} is {data[name]!r:.60}, and wanted are {wanted}")
        if not isinstance(item.solver.get("kind"), str):
            raise ValueError("not an item: its solver has no kind")
        if not all(isinstance(label, str) for label in item.axes.values()):
            raise ValueError("not an item: a label of its axes is no text")
        if wrong := wrong_stored(item.inputs):
            raise ValueError(f"not an item: {wrong}")
        return item

    def fits(self) -> bool | None:
        """Return True when id and pair are the hashes of what the item says; None where its adapter is not there to ask."""
        found = self.hashes()
        return None if found is None else (self.pair, self.id) == found

    def hashes(self) -> tuple[str, str] | None:
        """Return the pair and the id of what the item says; None where its adapter is not there to ask."""
        from genrun.adapters import registry

        try:
            call = registry.get(str(self.model["adapter"])).call
            shared = _hash_of_cell(self.model, call, self.sampling)
        except (LookupError, ImportError, AttributeError, TypeError, ValueError):
            return None
        texts = (self.prompt, self.negative_prompt, self.seed)
        return _ids(shared, texts, identity(self.inputs), _suffix(self.solver, self.cache, self.attention))


def plan(loaded: LoadedJob) -> list[WorkItem]:
    """List the items of a job: by prompt and seed, the cells of the matrix side by side.

    Raises:
        JobFileError: two cells or prompts make the same item, there are too many, or a checkpoint cannot be read.
    """
    count = sum(len(cell.prompts) * len(cell.job.seeds) for cell in loaded.cells)
    if count > MAX_ITEMS:
        message = f"{count:,} items, more than {MAX_ITEMS:,}. Use `prompts.limit`, or split the job."
        raise_all([JobProblem(Origin(str(loaded.path)), "", message)])
    columns = [list(_items(cell, model)) for cell, model in zip(loaded.cells, models_of(loaded), strict=True)]
    columns = certificates.merged(loaded.cells, columns)
    _refuse_same(loaded, columns)
    columns = _audited(loaded, columns)
    rows = itertools.zip_longest(*columns)
    return [pair[0] for row in rows for pair in row if pair is not None]


def _audited(loaded: LoadedJob, columns: list[list[tuple[WorkItem, Prompt]]]) -> list[list[tuple[WorkItem, Prompt]]]:
    """Mark the items that are audited, and add the sequential ones that they are compared with.

    Drawn by a hash of their pairs: the same pairs in every cell that has them, so that these share a sequential item.
    """
    asked = loaded.job.audit
    if asked is None:
        return columns
    references = {item.pair for column in columns for item, _ in column if item.is_reference}
    if not any("tolerance" in item.solver and not item.is_reference for column in columns for item, _ in column[:1]):
        message = "no solver of this job has a tolerance to hold its items against. Leave it out."
        raise_all([JobProblem(loaded.origin.get("audit", Origin(str(loaded.path))), "audit", message)])
    chosen: set[str] = set()
    added: dict[tuple[str, ...], list[tuple[WorkItem, Prompt]]] = {}
    marked = []
    for cell, column in zip(loaded.cells, columns, strict=True):
        able = [item for item, _ in column if not item.is_reference and "tolerance" in item.solver]
        able.sort(key=lambda item: hashlib.sha256(f"audit {item.pair}".encode()).digest())
        drawn = {item.id for item in able[: audit_size(asked, len(able))]}
        if cell.axes or not able:
            labelled = column
        else:
            labelled = [(replace(item, axes={"solver": cell.job.solver.kind}), prompt) for item, prompt in column]
        for item, prompt in labelled:
            if item.id in drawn and item.pair not in {*references, *chosen}:
                reference = _reference(item, cell)
                added.setdefault(tuple(reference.axes.values()), []).append((reference, prompt))
        chosen |= {item.pair for item in able if item.id in drawn}
        marked.append([(replace(item, audit=item.id in drawn), prompt) for item, prompt in labelled])
    seen = [
        [
            (replace(item, audit=item.audit or (item.is_reference and item.pair in chosen)), prompt)
            for item, prompt in each
        ]
        for each in marked
    ]
    return [*seen, *added.values()]


def audit_size(asked: float | str, count: int) -> int:
    """Return how many of `count` items are audited, for a number or a percentage: at least one, where there is one."""
    share = float(asked.removesuffix("%")) / 100 if isinstance(asked, str) else None
    return min(count, int(asked) if share is None else math.ceil(count * share - 1e-9))


def _reference(item: WorkItem, cell: Cell) -> WorkItem:
    """Return the sequential item that an item is compared with, in a cell of such items."""
    solver = {"kind": SEQUENTIAL}
    shared = _hash_of_cell(item.model, cell.adapter.call, item.sampling)
    texts = (item.prompt, item.negative_prompt, item.seed)
    pair, item_id = _ids(shared, texts, identity(item.inputs), _suffix(solver, {}, NATIVE))
    kept = {axis: label for axis, label in item.axes.items() if axis.partition(".")[0] not in HOW}
    axes = {axis: kept.get(axis, SEQUENTIAL) for axis in item.axes}
    if len(kept) == len(item.axes):
        axes["solver"] = SEQUENTIAL
    return replace(
        item, id=item_id, pair=pair, solver=solver, axes=axes, cache={}, attention=NATIVE, promise={}, audit=True
    )


def models_of(loaded: LoadedJob) -> list[dict[str, Any]]:
    """Return the model of each cell as its items have it.

    Raises:
        JobFileError: a checkpoint cannot be read.
    """
    fingerprints = _fingerprints(loaded)
    return [_model(cell, fingerprints) for cell in loaded.cells]


def _fingerprints(loaded: LoadedJob) -> dict[tuple[str, str | None], str]:
    found: dict[tuple[str, str | None], str] = {}
    for cell in loaded.cells:
        added = ((each, None) for each in cell.additions.sources.values())
        for source, revision in ((cell.checkpoint, cell.job.model.revision), *added):
            key = (source.name, revision)
            if key in found:
                continue
            try:
                found[key] = source.fingerprint(revision)
            except OSError as error:
                where = loaded.origin.get("model.checkpoint", Origin(str(loaded.path)))
                message = f"{error.filename or source.name}: cannot be read: {error.strerror}."
                raise_all([JobProblem(where, "model.checkpoint", message)])
    return found


def _model(cell: Cell, fingerprints: Mapping[tuple[str, str | None], str]) -> dict[str, Any]:
    model = cell.job.model
    held = model.model_dump(mode="json", include=HELD, exclude_none=True)
    if cell.checkpoint.folder is not None and not changes_weights(cell.checkpoint.folder, model.variant):
        held.pop("variant", None)
    contents = {name: fingerprints[name, None] for name in cell.additions.sources}
    return {
        "adapter": model.adapter,
        "checkpoint": cell.checkpoint.name,
        "fingerprint": fingerprints[cell.checkpoint.name, model.revision],
        "revision": model.revision,
        "dtype": cell.dtype,
        "device": model.device,
        **held,
        **cell.additions.model,
        **({CONTENTS: contents} if contents else {}),
    }


def _items(cell: Cell, model: dict[str, Any]) -> Iterator[tuple[WorkItem, Prompt]]:
    """Yield the items of one cell, each with the prompt that it comes from."""
    from genrun.runner.job.cell import sampling_of

    sampling = {key: value for key, value in cell.sampling.items() if key != "negative_prompt"}
    solver = {"kind": cell.job.solver.kind, **cell.job.solver.options}
    # Hashing what a cell shares once keeps the planning of long prompt lists fast.
    of_cell = _hash_of_cell(model, cell.adapter.call, sampling)
    cache = {} if cell.job.cache.kind == NO_CACHE else {"kind": cell.job.cache.kind, **cell.job.cache.options}
    attention = cell.job.attention
    shared_conditions = conditions_of_cell(cell, model)
    settled_by: dict[bytes, tuple[dict[str, Any], dict[str, Any]]] = {}
    for prompt, files in zip(cell.prompts, cell.inputs, strict=True):
        own = sampling_of(sampling, prompt) if prompt.row else sampling
        shared = of_cell if own == sampling else _hash_of_cell(model, cell.adapter.call, own)
        conditions = own_conditions(cell, prompt, files)
        at = canonical(conditions) if conditions else b""
        if at not in settled_by:
            settled_by[at] = _settled(cell, {**shared_conditions, **conditions}, solver)
        settled = settled_by[at]
        # Under a cache or another kernel, exact sampling would be exact no more.
        by, kernel = ({}, NATIVE) if settled[1].get("state") == certificates.EXACT else (cache, attention)
        suffix = _suffix(settled[0], by, kernel)
        inputs = as_stored(files, prompt.inputs)
        negative = prompt.negative_prompt
        negative = cell.sampling.get("negative_prompt") if negative is None else negative
        for seed in cell.job.seeds if prompt.seed is None else (prompt.seed,):
            pair, item_id = _ids(shared, (prompt.text, negative, seed), identity(inputs), suffix)
            how = (model, own, settled[0], dict(cell.axes), by, kernel, inputs, dict(prompt.row), settled[1])
            yield WorkItem(item_id, pair, prompt.text, negative, seed, *how), prompt


def _settled(
    cell: Cell, conditions: Mapping[str, Any], solver: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the setting of a cell's solver, by its certificate where there is one, and what is promised of it."""
    if not certificates.can_be_calibrated(solver):
        return dict(solver), {}
    subject, confidence = certificates.subject_of(conditions, solver), cell.job.solver.confidence
    return certificates.settle(Path(cell.job.output.dir), subject, solver, confidence, hash_of_prompts(cell))


def _hash_of_cell(model: Mapping[str, Any], call: Mapping[str, Any], sampling: Mapping[str, Any]) -> Hash:
    base = {
        "version": IDENTITY_VERSION,
        "model": identity_of_model(model),
        "call": dict(call),
        "sampling": dict(sampling),
    }
    return hashlib.sha256(canonical(base))


def _suffix(solver: Mapping[str, Any], cache: Mapping[str, Any], attention: str) -> bytes:
    """Return what is hashed of how an item is computed."""
    # A cache or kernel that is not used is not hashed, so that ids stay what they were before there were any.
    extras: dict[str, Any] = {"cache": cache} if cache else {}
    extras |= {"attention": attention} if attention != NATIVE else {}
    return canonical(solver) + (canonical(extras) if extras else b"")


def _ids(shared: Hash, texts: tuple[str, str | None, int], inputs: Mapping[str, Any], suffix: bytes) -> tuple[str, str]:
    """Return the pair and the id of an item."""
    hashed = shared.copy()
    hashed.update(canonical(texts))
    # Not hashed where there are none, so that ids stay what they were before there were any.
    if inputs:
        hashed.update(canonical({"inputs": inputs}))
    pair = hashed.hexdigest()[:ID_DIGITS]
    hashed.update(suffix)
    return pair, hashed.hexdigest()[:ID_DIGITS]


def _refuse_same(loaded: LoadedJob, columns: list[list[tuple[WorkItem, Prompt]]]) -> None:
    first: dict[str, tuple[WorkItem, Prompt]] = {}
    problems = set()
    for item, prompt in itertools.chain.from_iterable(columns):
        other, other_prompt = first.setdefault(item.id, (item, prompt))
        if other is item:
            continue
        if other.axes == item.axes:
            message = f"with seed {item.seed} the same item as {other_prompt.origin}. Remove one of them."
            problems.add(JobProblem(prompt.origin, "", message))
        else:
            one, two = (", ".join(f"{axis}={label}" for axis, label in each.axes.items()) for each in (other, item))
            places = [origin for path, origin in loaded.origin.items() if path.startswith("matrix.")]
            where = min(places, default=Origin(str(loaded.path)))
            problems.add(JobProblem(where, "matrix", f"{one} and {two} make the same items. Remove one of them."))
    raise_all(problems)
