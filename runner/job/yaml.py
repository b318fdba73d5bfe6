"""YAML text as values with places: plain data only, within limits, and with YAML 1.2's idea of a number.

PyYAML follows YAML 1.1, where `1e-3` is text, `12:30:00` is 45000 and `no` is false; here they are a number and texts.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from genrun.adapters.files import TooLargeError, read_bounded
from genrun.runner.job.problems import Origin, Problem, raise_all
from genrun.runner.job.tree import Value

MAX_BYTES = 2**20
MAX_DEPTH = 40
MAX_WRITTEN = 50_000
"""Values that are written out: reading more of them, or more text, takes PyYAML longer than anybody waits for a check."""

MAX_VALUES = 100_000
"""Values with those that aliases stand for."""


_HALF_PAIR = re.compile("[\ud800-\udfff]")
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)

TAG = "tag:yaml.org,2002:"
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_RESOLVERS = (
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), "tTfF"),
    ("null", re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    ("int", re.compile(r"(?:[-+]?[0-9]{1,100}|0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100})\Z"), "-+0123456789"),
    ("float", re.compile(rf"(?:{_FLOAT.pattern})\Z"), "-+.0123456789"),
)


class _Loader(yaml.SafeLoader):
    """Composes nodes only; nothing is ever constructed from a tag."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 (PyYAML's own class attribute)
    depth = count = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(None, None, f"nested deeper than {MAX_DEPTH} levels", mark)
        self.count += 1
        if self.count > MAX_WRITTEN:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(None, None, f"more than {MAX_WRITTEN:,} values. Put prompts into a file", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _name, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(TAG + _name, _pattern, list(_first))


def read(path: Path, name: str) -> Value:
    """Read a YAML file of one mapping.

    Args:
        path: the file.
        name: what messages call it.

    Raises:
        JobFileError: for everything that is wrong with the file as YAML.
    """
    whole = Origin(name)
    try:
        data = read_bounded(path, MAX_BYTES)
    except TooLargeError as error:
        size = f"{error.size:,} bytes, more than the {MAX_BYTES:,} a job file may have"
        raise_all([Problem(whole, "", f"{size}. Put prompts into a file: `prompts: {{file: prompts.txt}}`.")])
        raise
    except OSError as error:
        raise_all([Problem(whole, "", f"cannot be read: {error.strerror}.")])
        raise
    value = parse(decode(data, name), lambda line, column: Origin(name, line, column))
    if not value.is_mapping:
        wanted = "wanted a mapping such as `model: demo-video`"
        raise_all(
            [
                Problem(
                    Origin(name, 1, 1),
                    "",
                    f"{wanted}, got {'nothing' if value.data is None else 'other data'}.",
                )
            ]
        )
    return value


def decode(data: bytes, name: str) -> str:
    """Return the text of a file, without a byte order mark.

    Raises:
        JobFileError: it is not UTF-8; the message names line and column of the first bad byte.
    """
    if data.startswith(_UTF_16):
        raise_all([Problem(Origin(name, 1, 1), "", "is UTF-16 (or UTF-32). Save the file as UTF-8.")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        message = f"byte 0x{error.object[error.start]:02x} is not UTF-8. Save the file as UTF-8."
        raise_all([Problem(Origin(name, line, column), "", message)])
        raise


def parse(text: str, place: Callable[[int, int], Origin]) -> Value:
    """Parse YAML text.

    Args:
        text: one document.
        place: the origin of a 1-based line and column.

    Raises:
        JobFileError: syntax, tags, duplicate keys, keys that are not text, or more data than the limits allow.
    """
    walk = _Walk(place)
    try:
        node = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise_all([Problem(place(line, column), "", f"not YAML: {_reason(error)}.")])
        raise
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        code = f"U+{int(error.character):04X}"
        message = f"character {code} is not allowed in YAML. Write it as an escape in double quotes."
        raise_all([Problem(place(line, column), "", message)])
        raise
    value = Value(None, place(1, 1)) if node is None else walk.value(node)
    raise_all(walk.problems)
    return value


def retype(text: str) -> Any:
    """The value of plain text that came from the environment: `8` is a number, `true` a boolean."""
    for name, pattern, _ in _RESOLVERS:
        if pattern.match(text):
            return None if name == "null" else _SCALARS[name](text)
    return text


class _Walk:
    """Turns nodes into values and gathers what is wrong with them."""

    def __init__(self, place: Callable[[int, int], Origin]) -> None:
        self.place = place
        self.problems: list[Problem] = []
        self.count = 0
        self.open: set[int] = set()

    def value(self, node: yaml.Node, key: Origin | None = None) -> Value:
        origin = self._origin(node)
        self._count(node, origin)
        self.open.add(id(node))
        data = self._data(node, origin)
        self.open.discard(id(node))
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        return Value(data, origin, key or origin, plain)

    def _origin(self, node: yaml.Node) -> Origin:
        return self.place(node.start_mark.line + 1, node.start_mark.column + 1)

    def _count(self, node: yaml.Node, origin: Origin) -> None:
        self.count += 1
        if self.count > MAX_VALUES:
            message = (
                f"aliases (`*name`) expand to more than {MAX_VALUES:,} values. Write the values out, or use `matrix`."
            )
            raise_all([Problem(origin, "", message)])
        if id(node) in self.open:
            raise_all([Problem(origin, "", "an alias (`*name`) contains itself. Write the values out.")])

    def _data(self, node: yaml.Node, origin: Origin) -> Any:
        kind = node.tag.removeprefix(TAG)
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.value(child) for child in node.value]
        if isinstance(node, yaml.ScalarNode) and kind in _SCALARS:
            try:
                return _SCALARS[kind](node.value)
            except ValueError:
                self._wrong(origin, f"{node.value!r} is not of the type its tag says. Remove the tag.")
                return None
        tag = "!!" + kind if node.tag.startswith(TAG) else node.tag
        self._wrong(origin, f"the YAML tag {tag!r} is not allowed: a job holds plain values. Remove the tag.")
        return None

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Value]:
        children: dict[str, Value] = {}
        for key_node, child in node.value:
            origin = self._origin(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self._wrong(origin, "a key must be text.")
                continue
            key = _text(key_node.value)
            if key == "<<" and key_node.style is None:
                self._wrong(origin, "merge keys (`<<`) are not supported. Use `extends: other.yaml`.")
                continue
            if key in children:
                first = children[key].key
                self._wrong(origin, f"{key!r} is given twice, first at {first}. Remove one of them.")
            children[key] = self.value(child, origin)
        return children

    def _wrong(self, origin: Origin, message: str) -> None:
        self.problems.append(Problem(origin, "", message))


def _reason(error: yaml.MarkedYAMLError) -> str:
    parts = [error.context, error.problem]
    return " ".join(part for part in parts if part)


def _text(text: str) -> str:
    """A text in which pairs of surrogates are the characters that they stand for: JSON, which YAML includes, escapes so."""
    if not _HALF_PAIR.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _bool(text: str) -> bool:
    if text not in _BOOLS:
        raise ValueError(text)
    return _BOOLS[text]


def _int(text: str) -> int:
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_SCALARS: dict[str, Callable[[str], Any]] = {
    "str": _text,
    "null": lambda _text: None,
    "bool": _bool,
    "int": _int,
    "float": _float,
}
