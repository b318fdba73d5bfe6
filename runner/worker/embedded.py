"""What a media file says of itself, checked as a job is: it may come from anywhere, and its words become paths and calls."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genrun.runner.errors import UsageError
from genrun.runner.job.errors import JobFileError, Origin
from genrun.runner.job.plan import ID_DIGITS, NO_CACHE, WorkItem, plan
from genrun.runner.job.resolve import check
from genrun.runner.job.tree import dress
from genrun.runner.store.reading import read_json

REMEDY = "Only files as genrun wrote them can be made again."
SAVING = ("tiling", "slicing")
MADE = {"fps": (1, 1_000), "crf": (0, 51), "threads": (1, 1_000_000)}
"""What is told of how a file was written -> the least and the most that it can be."""

_ID = re.compile(rf"[0-9a-f]{{{ID_DIGITS}}}")


@dataclass(frozen=True)
class Told:
    """What a media file says of how it was made.

    Attributes:
        item: the item.
        made: fps, crf and threads: those that it tells.
        saving: what the VAE did to save memory.
    """

    item: WorkItem
    made: Mapping[str, int]
    saving: tuple[str, ...]


def told_by(metadata: Mapping[str, Any], path: Path) -> Told:
    """Check what a file says of how it was made.

    Args:
        metadata: as they are in the file.
        path: the file, for messages.

    Raises:
        UsageError: that can have made nothing here; the message says why.
    """
    if "item" not in metadata:
        raise UsageError(f"{path}: does not say how it was made: no item.", remedy="Name a file that genrun wrote.")
    try:
        item = _item(metadata["item"], path)
        made = metadata.get("made")
        return Told(item, _made({} if made is None else made), _saving(metadata.get("saving") or ()))
    except ValueError as error:
        raise UsageError(f"{path}: does not say how it was made: {error}.", remedy=REMEDY) from error


def _item(data: Any, path: Path) -> WorkItem:
    item = WorkItem.from_dict(read_json(json.dumps(data)))
    for name in ("id", "pair"):
        text = getattr(item, name)
        if not isinstance(text, str) or not _ID.fullmatch(text):
            raise ValueError(f"its {name} is {text!r:.60}, and wanted are {ID_DIGITS} hexadecimal digits")
    if not isinstance(item.axes, dict) or not all(isinstance(label, str) for label in item.axes.values()):
        raise ValueError("its axes are no texts")
    again = _planned(item, path)
    if item.fits() is not True:
        raise ValueError(f"its id {item.id} is not that of what it says")
    if again.model["fingerprint"] != item.model.get("fingerprint"):
        raise ValueError(f"the weights in {again.model['checkpoint']!r:.200} are not those that made it")
    return item


def _planned(item: WorkItem, path: Path) -> WorkItem:
    """The item as a job of its own would plan it, which checks all that it says.

    Raises:
        ValueError: such a job would be refused; the message says why.
    """
    if not isinstance(item.model, dict) or not isinstance(item.sampling, dict):
        raise ValueError("its model and its sampling are no mappings")
    job = {
        "name": "rerun",
        "model": {name: value for name, value in item.model.items() if name != "fingerprint" and value is not None},
        "prompts": [item.prompt],
        "seeds": [item.seed],
        "sampling": {**item.sampling, "negative_prompt": item.negative_prompt},
        "solver": item.solver,
        "cache": item.cache or {"kind": NO_CACHE},
        "attention": item.attention,
    }
    try:
        return plan(check(dress(job, Origin(str(path))), path, environ={}))[0]
    except JobFileError as error:
        first = error.problems[0]
        named = f"{first.path}: " if first.path else ""
        raise ValueError(f"{named}{first.message.rstrip('.')}") from error


def _made(data: Any) -> dict[str, int]:
    if not isinstance(data, dict):
        raise ValueError("`made` is no object")
    found = {}
    for name, (least, most) in MADE.items():
        value = data.get(name)
        if value is None:
            continue
        if type(value) is not int or not least <= value <= most:
            raise ValueError(f"{name} is {value!r:.60}, and wanted is a whole number from {least} to {most}")
        found[name] = value
    return found


def _saving(data: Any) -> tuple[str, ...]:
    if not isinstance(data, list | tuple) or any(means not in SAVING for means in data):
        raise ValueError(f"`saving` is {data!r:.60}, and wanted is a list of {' and '.join(SAVING)}")
    return tuple(data)
