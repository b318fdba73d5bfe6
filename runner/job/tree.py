"""A job file as a tree of values that know where they were written; how trees are merged, and how messages show values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from genrun.registry import did_you_mean
from genrun.runner.job.errors import JobProblem, Origin

Path = tuple[str | int, ...]
"""Keys and list indices from the root."""

MAX_TEXT = 60
"""Characters of a value that a message shows: enough to find it by."""


@dataclass(frozen=True)
class Value:
    """A value and its place.

    Attributes:
        data: a scalar, a mapping of values or a list of values.
        origin: where the value is written.
        key: where its key is written; the value's own place in a list.
        plain: True for a scalar without quotes, whose type follows from its text.
        source: for a value made from a secret of the environment, the text that stands for it.
        wrong: why there is no data, or None.
        written: the text of a number that Python writes otherwise, such as 1.10 or 1e3.
    """

    data: Any
    origin: Origin
    key: Origin | None = None
    plain: bool = False
    source: str | None = None
    wrong: str | None = None
    written: str | None = None

    @property
    def is_mapping(self) -> bool:
        """True when the value has keys."""
        return isinstance(self.data, dict)

    def get(self, key: str) -> Value | None:
        """Return the value of a key, or None."""
        return self.data.get(key) if isinstance(self.data, dict) else None

    def find(self, path: Path) -> Value | None:
        """Return the value at a path, or None."""
        here: Value | None = self
        for part in path:
            data = here.data if here is not None else None
            if isinstance(data, dict):
                here = data.get(part)
            elif isinstance(data, list) and isinstance(part, int) and part < len(data):
                here = data[part]
            else:
                return None
        return here

    def nearest(self, path: Path) -> Value:
        """Return the value at a path, or the closest of those around it."""
        found = (self.find(path[:length]) for length in range(len(path), 0, -1))
        return next((value for value in found if value is not None), self)

    def place(self, path: Path, *, key: bool = False) -> Origin:
        """Return where the value at `path` (or its key) is written; where it would be, when it is missing."""
        found = self.nearest(path)
        return found.key or found.origin if key else found.origin

    def problem(self, path: Path, message: str, *, key: bool = False, fails_items: bool = False) -> JobProblem:
        """Return a problem of the value at `path`, or of its key."""
        return JobProblem(self.place(path, key=key), dotted(path), message, fails_items)

    def text(self, path: Path) -> str | None:
        """Return the text at a path; None where there is none, or an empty one."""
        found = self.find(path)
        return found.data or None if found is not None and isinstance(found.data, str) else None

    def entries(self, path: Path) -> list[tuple[Path, Value]]:
        """Return the elements of the list at a path with their paths; none where there is no list."""
        found = self.find(path)
        elements = found.data if found is not None and isinstance(found.data, list) else []
        return [((*path, index), element) for index, element in enumerate(elements)]

    def children(self) -> list[tuple[str | int, Value]]:
        """Return what is in a mapping or a list, with keys or indices."""
        if isinstance(self.data, dict):
            return list(self.data.items())
        return list(enumerate(self.data)) if isinstance(self.data, list) else []

    def leaves(self, path: Path = ()) -> Iterator[tuple[Path, Value]]:
        """Yield every scalar, empty list and empty mapping with its path."""
        children = self.children()
        for key, child in children:
            yield from child.leaves((*path, key))
        if not children:
            yield path, self

    def map_leaves(self, change: Callable[[Value, Path], Value], path: Path = ()) -> Value:
        """Return the tree with every scalar replaced by what `change` makes of it and its path."""
        if isinstance(self.data, dict):
            return replace(self, data={key: each.map_leaves(change, (*path, key)) for key, each in self.data.items()})
        if isinstance(self.data, list):
            return replace(self, data=[each.map_leaves(change, (*path, i)) for i, each in enumerate(self.data)])
        return change(self, path)


def bare(value: Value) -> Any:
    """Return the data without places."""
    if isinstance(value.data, dict):
        return {key: bare(child) for key, child in value.data.items()}
    return [bare(child) for child in value.data] if isinstance(value.data, list) else value.data


def dress(data: Any, origin: Origin) -> Value:
    """Return data with one place for all of it; the inverse of `bare`."""
    if isinstance(data, Mapping):
        return Value({key: dress(child, origin) for key, child in data.items()}, origin, origin)
    if isinstance(data, list | tuple):
        return Value([dress(child, origin) for child in data], origin, origin)
    return Value(data, origin, origin)


def merge(parent: Value, child: Value) -> Value:
    """Lay `child` over `parent`: mappings are merged, anything else is replaced.

    A mapping with another `kind` than the parent's replaces it too: its other keys are options of that kind.
    """
    kinds = (_kind(parent), _kind(child))
    if not (parent.is_mapping and child.is_mapping) or (None not in kinds and kinds[0] != kinds[1]):
        return child
    merged = dict(parent.data)
    for key, value in child.data.items():
        merged[key] = merge(merged[key], value) if key in merged else value
    return replace(child, data=merged)


def put(root: Value, path: tuple[str, ...], value: Value) -> Value:
    """Replace the value at `path`, making mappings on the way; another `kind` drops the options of the old one."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    children = root.data if isinstance(root.data, dict) else {}
    if path == ("kind",) and _kind(root) not in (None, value.data):
        children = {}
    below = children.get(head, Value({}, value.origin, value.key))
    origin = root.origin if root.is_mapping else value.origin
    return replace(root, data={**children, head: put(below, rest, value)}, origin=origin, plain=False)


def _kind(value: Value) -> Any:
    kind = value.get("kind")
    return None if kind is None else kind.data


def dotted(path: Path) -> str:
    """Return a path as it is written in messages: `prompts[2]`, `solver.workers`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if part.isprintable() else part.encode("unicode_escape").decode("ascii")
            text += f".{key}" if text else key
    return text


def section_path(path: Path) -> Path:
    """Return the path that a value of the matrix has in its cell; any other path itself."""
    if path[:1] != ("matrix",) or len(path) < 3:
        return path
    return (*str(path[1]).split("."), *path[3:])


def repeated(entries: Iterable[tuple[Path, Value]]) -> Iterator[JobProblem]:
    """Name each scalar that an earlier one equals, and where that is."""
    first: dict[Any, Value] = {}
    for path, value in entries:
        same = first.setdefault(value.data, value)
        if same is not value:
            message = f"{value.data} is given twice, first at {same.origin}. Remove one of them."
            yield JobProblem(value.origin, dotted(path), message)


def shown(data: Any) -> str:
    """Return a value as messages show it: short, on one line, control characters escaped."""
    if isinstance(data, dict):
        return "a mapping"
    if isinstance(data, list | tuple):
        return "a list" if data else "an empty list"
    if data is None:
        return "nothing"
    if isinstance(data, str):
        text = repr(data)
        return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 4]}...{text[-1]}"
    return json.dumps(data) if isinstance(data, bool) else str(data)[:MAX_TEXT]


def got(value: Value | None) -> str:
    """Return the value that was got, as messages show it; a secret as the variable it came from."""
    if value is None:
        return "nothing"
    return shown(value.source if value.source is not None else bare(value))


def unknown(name: str, known: Sequence[str], what: str) -> str:
    """Say that a name is no `what`, which one was probably meant, and which there are."""
    return f"there is no {what} {shown(name)}.{did_you_mean(name, known)} There are: {', '.join(known) or 'none'}."


def unknown_option(name: str, known: Sequence[str]) -> str:
    """Say that an option is unknown and which one was probably meant, or which there are when none is close."""
    there_are = f" There are: {', '.join(known)}." if known else " There are none."
    return f"unknown option.{meant(name, known) or there_are}"


ELSEWHERE: Mapping[str, str] = {
    "num_inference_steps": "steps",
    "cfg_scale": "guidance_scale",
    "video_length": "num_frames",
    "frames": "num_frames",
    "mask_image": "mask",
}
"""What diffusers and other programs call something that a job names otherwise."""


def meant(name: str, known: Sequence[str]) -> str:
    """Return " Did you mean 'steps'?", or "" when neither another program's name for it nor a close one is known."""
    other = ELSEWHERE.get(name)
    return f" Did you mean {other!r}?" if other in known else did_you_mean(name, known)
