"""Files a run is made from: its plan, plan.jsonl with an item a line; its job.yaml, with output settings; and its inputs.

Inputs are copies of the pictures and clips that prompts name, kept by the hash of their bytes, so that a run can be gone on
with, repeated, shown and moved without the files that it was made from, and so that one of these that is changed later is
never taken for what it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrun.adapters import media, registry
from genrun.adapters.input_files import InputError, InputFile, read
from genrun.runner.errors import DamagedFileError, RunError
from genrun.runner.store.files import MENDS, WRONG_CONTENT, read_bytes, reading, sha256_of, staged, write_error
from genrun.runner.store.scores import metrics_of
from genrun.runner.strict_json import read_json

if TYPE_CHECKING:
    from genrun.runner.job.plan import WorkItem
    from genrun.runner.store.folder import RunFolder
    from genrun.runner.store.records import Record


FILE = "plan.jsonl"

SHAPES: dict[str, Any] = {
    "name": str,
    "model": dict | str,
    "matrix": dict | list,
    **dict.fromkeys(("output", "launch", "sampling", "parallel", "nightly"), dict),
    **dict.fromkeys(("score", "seeds"), list),
    "gates": dict,
}
"""Sections of a stored job."""

DEEPEST = 100
LARGEST = 2_000_000
"""Levels and values of a stored job; those of job files are fewer. More is a file that would fill the memory."""

TOO_DEEP = f"nested deeper than {DEEPEST} levels"


@dataclass(frozen=True)
class PlanFile:
    """A plan as it was read.

    Attributes:
        path: the file.
        items: of the lines that are whole, in order, each id once.
        lines: the number of each item's line.
        wrong: number of a line -> what is wrong with it.
    """

    path: Path
    items: Sequence[WorkItem]
    lines: Sequence[int]
    wrong: dict[int, str]

    def whole(self) -> list[WorkItem]:
        """Return the items of a plan that is whole.

        Raises:
            DamagedFileError: a line is wrong.
        """
        for number, why in self.wrong.items():
            more = f" (and {len(self.wrong) - 1} more lines)" if len(self.wrong) > 1 else ""
            raise DamagedFileError(f"{self.path}:{number}: {why}{more}.", remedy=MENDS)
        return list(self.items)


def read_plan(path: Path) -> PlanFile:
    """Read a plan.

    Raises:
        DamagedFileError: it is not there, or holds no text.
        UnreadableError: it cannot be looked into.
    """
    from genrun.runner.job.plan import WorkItem

    with reading(path):
        text = read_bytes(path).decode("utf-8")
    items: dict[str, WorkItem] = {}
    lines: dict[str, int] = {}
    wrong: dict[int, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        try:
            item = WorkItem.from_dict(read_json(line))
        except WRONG_CONTENT as error:
            wrong[number] = f"is damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
            continue
        if item.id in items:
            wrong[number] = f"the item {item.id} is planned twice: in line {lines[item.id]}, too"
            continue
        items[item.id], lines[item.id] = item, number
    return PlanFile(path, list(items.values()), list(lines.values()), wrong)


def misfits(plan: PlanFile, *, is_ours: bool) -> dict[int, str]:
    """Return the lines whose id is not the hash of what they say, each with what is wrong.

    Args:
        plan: the plan.
        is_ours: whether this version of genrun made it. What an adapter hands to every call is hashed, too, and may have
            changed since another version: such a plan is only judged where some of its lines fit.
    """
    fit = [item.fits() for item in plan.items]
    some_fit = any(fit)
    return {
        number: f"does not fit its id: {item.id} is not the hash of what the line says"
        for number, item, fits in zip(plan.lines, plan.items, fit, strict=True)
        if (fits is False and (some_fit or is_ours)) or (fits is None and some_fit)
    }


def read_job(path: Path) -> dict[str, Any]:
    """Read a stored job.

    Raises:
        StoreError: it cannot be read, or is no job.
    """
    import yaml

    with reading(path):
        try:
            document = _parsed(read_bytes(path).decode("utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"no YAML: {getattr(error, 'problem', None) or type(error).__name__}") from error
        _check_shape(document)
        return document


def _parsed(text: str) -> Any:
    """Parse YAML in C, where PyYAML has that: a job of thousands of prompts takes seconds otherwise."""
    import yaml

    fast = getattr(yaml, "CSafeLoader", None)
    if fast is not None:
        try:
            return _loaded(text, fast)
        except yaml.YAMLError:
            # Halves of surrogate pairs, which prompts may hold, are read and written by the loader in Python alone.
            pass
    return _loaded(text, yaml.SafeLoader)


def _loaded(text: str, loader: Any) -> Any:
    import yaml

    depth = aliases = 0
    # First by its events alone, which bounds what the loader gets to see.
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > DEEPEST:
            raise ValueError(TOO_DEEP)
    document = yaml.load(text, Loader=loader)
    if aliases:
        _check_unfolded(document)
    return document


def _check_unfolded(document: Any) -> None:
    """Refuse what contains itself, or is larger than any job once its aliases are written out."""
    found, count = [(document, 1)], 0
    while found:
        value, depth = found.pop()
        below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        count += len(below)
        if depth > DEEPEST or count > LARGEST:
            raise ValueError(TOO_DEEP if depth > DEEPEST else f"holds more than {LARGEST:,} values")
        found += [(each, depth + 1) for each in below]


def _check_shape(document: Any) -> None:
    """Refuse a document that is no job; its sections are checked in detail when the job is restored."""
    if not isinstance(document, dict):
        raise TypeError(f"holds {type(document).__name__}, not a job")
    if "name" not in document:
        raise KeyError("name")
    for name, kind in SHAPES.items():
        if document.get(name) is not None and not isinstance(document[name], kind):
            raise TypeError(f"{name} is {document[name]!r:.60}")
    for entry in document.get("score") or ():
        if not isinstance(entry.get("kind") if isinstance(entry, dict) else entry, str):
            raise TypeError(f"score holds {entry!r:.60}")
    for metric, rules in (document.get("gates") or {}).items():
        if not isinstance(metric, str) or not isinstance(rules, dict):
            raise TypeError(f"gates.{metric} is {rules!r:.60}")
        for rule, limit in rules.items():
            try:
                float(limit.removesuffix("%") if isinstance(limit, str) else limit or 0)
            except (ValueError, TypeError, OverflowError) as error:
                raise ValueError(f"gates.{metric}.{rule} is {limit!r:.60}") from error


AUTO = "auto"
CLIP = "mp4"

LATENT_METRICS = frozenset({"latent_rmse", "latent_worst_block"})
"""Metrics that compare final latents instead of pictures."""


def wants_latents(document: Mapping[str, Any]) -> bool:
    """Return True when a resolved job keeps latents: when told to, or when a metric or a gate on drift needs them."""
    metrics = {*metrics_of(document)}
    gated = {name.removeprefix("drift.") for name in document.get("gates") or ()}
    is_told = bool((document.get("output") or {}).get("save_latents"))
    return is_told or not LATENT_METRICS.isdisjoint(metrics | gated)


def written_with(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a resolved job asks of its media files, as records keep it: format, fps, crf; sound where it is said."""
    output = document.get("output") or {}
    said = {} if output.get("sound") is None else {"sound": output["sound"]}
    return {
        "format": output.get("format") or AUTO,
        "fps": output.get("fps"),
        "crf": output.get("crf", media.DEFAULT_CRF),
        **said,
    }


def differences(item: WorkItem, record: Record, before: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """List what an item's media file was written with and is now asked for: "output.crf: 18 -> 23"; none when it fits.

    Args:
        item: the item.
        record: its record, of a media file.
        before: what the file was written with, as `written_with` returns it.
        wanted: what the job asks for now.
    """
    suffix = str(record.media).rpartition(".")[2]
    fps = registry.get(item.model["adapter"]).fps
    pairs: dict[str, tuple[Any, Any]] = {"format": (_format(item, before, suffix), _format(item, wanted, suffix))}
    if suffix == CLIP:
        pairs["fps"] = (before.get("fps") or fps, wanted.get("fps") or fps)
        pairs["crf"] = (before.get("crf"), wanted.get("crf"))
        if record.sound or before.get("sound") is False:
            pairs["sound"] = (before.get("sound") is not False, wanted.get("sound") is not False)
    same = {key for key in pairs if before.get(key) == wanted.get(key)}
    return [f"output.{key}: {old} -> {new}" for key, (old, new) in pairs.items() if key not in same and old != new]


def _format(item: WorkItem, asked: Mapping[str, Any], suffix: str) -> str:
    """Return the suffix for a format; where only the loaded pipeline knows it, that of the existing file."""
    wanted = asked.get("format") or AUTO
    if wanted != AUTO:
        return str(wanted)
    return {"video": "mp4", "image": "png"}.get(str(registry.get(item.model["adapter"]).kind), suffix)


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
