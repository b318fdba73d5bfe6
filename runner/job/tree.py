"""A YAML document as values that know where they were written, and how documents are laid over each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from genrun.runner.job.problems import Origin

Path = tuple[str | int, ...]
"""Keys and list indices from the root."""


@dataclass(frozen=True)
class Value:
    """A value and its place.

    Attributes:
        data: a scalar, a mapping of values or a list of values.
        origin: where the value is written.
        key: where its key is written; the value's own place in a list.
        plain: whether it is a scalar without quotes, whose type follows from its text.
        source: for a value made from a secret of the environment, the text that stands for it.
        wrong: why there is no data, or None.
    """

    data: Any
    origin: Origin
    key: Origin | None = None
    plain: bool = False
    source: str | None = None
    wrong: str | None = None

    @property
    def is_mapping(self) -> bool:
        """Whether the value has keys."""
        return isinstance(self.data, dict)

    def get(self, key: str) -> Value | None:
        """The value of a key, or None."""
        return self.data.get(key) if isinstance(self.data, dict) else None

    def find(self, path: Path) -> Value | None:
        """The value at a path, or None."""
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
        """The value at a path, or the closest of those around it."""
        for length in range(len(path), 0, -1):
            found = self.find(path[:length])
            if found is not None:
                return found
        return self

    def children(self) -> list[tuple[str | int, Value]]:
        """What is in a mapping or a list, with keys or indices."""
        if isinstance(self.data, dict):
            return list(self.data.items())
        return list(enumerate(self.data)) if isinstance(self.data, list) else []

    def leaves(self, path: Path = ()) -> Iterator[tuple[Path, Value]]:
        """Every scalar, empty list and empty mapping with its path."""
        children = self.children()
        for key, child in children:
            yield from child.leaves((*path, key))
        if not children:
            yield path, self


def bare(value: Value) -> Any:
    """The data without places."""
    if isinstance(value.data, dict):
        return {key: bare(child) for key, child in value.data.items()}
    if isinstance(value.data, list):
        return [bare(child) for child in value.data]
    return value.data


def dress(data: Any, origin: Origin) -> Value:
    """Data with one place for all of it; the inverse of `bare`."""
    if isinstance(data, Mapping):
        return Value({key: dress(child, origin) for key, child in data.items()}, origin, origin)
    if isinstance(data, list | tuple):
        return Value([dress(child, origin) for child in data], origin, origin)
    return Value(data, origin, origin)


def merge(parent: Value, child: Value) -> Value:
    """Lay `child` over `parent`: mappings are merged, anything else is replaced.

    A mapping with another `kind` than the parent's replaces it too: its other keys are options of that kind.
    """
    if not (isinstance(parent.data, dict) and isinstance(child.data, dict)) or _kinds_differ(parent, child):
        return child
    merged = dict(parent.data)
    for key, value in child.data.items():
        merged[key] = merge(merged[key], value) if key in merged else value
    return replace(child, data=merged)


def put(root: Value, path: tuple[str, ...], value: Value) -> Value:
    """Replace the value at `path`, making mappings on the way.

    Another `kind` drops the options of the old one.
    """
    if not path:
        return value
    head, rest = path[0], path[1:]
    children = root.data if isinstance(root.data, dict) else {}
    if path == ("kind",) and _kind(root) not in (None, value.data):
        children = {}
    below = children.get(head, Value({}, value.origin, value.key))
    origin = root.origin if isinstance(root.data, dict) else value.origin
    return replace(root, data={**children, head: put(below, rest, value)}, origin=origin, plain=False)


def dotted(path: Path) -> str:
    """A path as it is written in messages: `prompts[2]`, `solver.workers`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if part.isprintable() else part.encode("unicode_escape").decode("ascii")
            text += f".{key}" if text else key
    return text


def section_path(path: Path) -> Path:
    """The path that a value of the matrix has in its cell; any other path itself."""
    if path[:1] != ("matrix",) or len(path) < 3:
        return path
    return (*str(path[1]).split("."), *path[3:])


def _kind(value: Value) -> Any:
    kind = value.get("kind")
    return None if kind is None else kind.data


def _kinds_differ(parent: Value, child: Value) -> bool:
    return None not in (_kind(parent), _kind(child)) and _kind(parent) != _kind(child)
