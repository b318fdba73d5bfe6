"""YAML text as values with places, and back: plain data only, within limits, and with YAML 1.2's idea of a number.

PyYAML follows YAML 1.1, where `1e-3` is text, `12:30:00` is 45000 and `no` is false; here they are a number and texts.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from genrun.adapters.files import TooLargeError, read_bounded
from genrun.runner.job.errors import JobProblem, Origin, raise_all, refuse
from genrun.runner.job.tree import Path as TreePath
from genrun.runner.job.tree import Value, dotted

MAX_BYTES = 2**20
"""Largest size of a job file in bytes: larger ones hold prompts, which belong in a file of their own."""

MAX_DEPTH = 40
"""Levels of nesting: a job has six, and PyYAML recurses."""

MAX_WRITTEN = 50_000
"""Values that are written out: reading more of them, or more text, takes PyYAML longer than anybody waits for a check."""

MAX_VALUES = 100_000
"""Values with those that aliases stand for: a few lines of aliases expand to billions."""

MAX_COMMENT_COLUMN = 60
"""Column of the comments that name origins; after a longer line they begin where it ends."""

TAG = "tag:yaml.org,2002:"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_PLAIN = re.compile(r"[A-Za-z_/.][A-Za-z0-9_/.+-]*( [A-Za-z0-9_/.+-]+)*", re.ASCII)
_YAML_1_1_WORDS = frozenset({"y", "n", "yes", "no", "on", "off"})
_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
_RESOLVERS = (
    ("bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z"), "tTfF"),
    ("null", re.compile(r"(?:~|null|Null|NULL|)\Z"), ["~", "n", "N", ""]),
    # At most 100 digits: Python's int() refuses thousands of them, and takes quadratic time for what it accepts.
    ("int", re.compile(r"(?:[-+]?[0-9]{1,100}|0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100})\Z"), "-+0123456789"),
    ("float", re.compile(rf"(?:{_FLOAT})\Z"), "-+.0123456789"),
)


class _Loader(yaml.SafeLoader):
    """Composes nodes only; nothing is ever constructed from a tag."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 (PyYAML's own class attribute)
    depth = count = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        self.count += 1
        if self.depth > MAX_DEPTH:
            self._stop(f"nested deeper than {MAX_DEPTH} levels")
        if self.count > MAX_WRITTEN:
            self._stop(f"more than {MAX_WRITTEN:,} values. Put prompts into a file")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _stop(self, why: str) -> None:
        raise yaml.MarkedYAMLError(None, None, why, self.peek_event().start_mark)


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
    try:
        data = read_bounded(path, MAX_BYTES)
    except TooLargeError as error:
        size = f"{error.size:,} bytes, more than the {MAX_BYTES:,} a job file may have"
        refuse(Origin(name), f"{size}. Put prompts into a file: `prompts: {{file: prompts.txt}}`.")
    except OSError as error:
        refuse(Origin(name), f"cannot be read: {error.strerror}.")
    value = parse(decode(data, name), lambda line, column: Origin(name, line, column))
    if not value.is_mapping:
        found = "nothing" if value.data is None else "other data"
        refuse(Origin(name, 1, 1), f"wanted a mapping such as `model: demo-video`, got {found}.")
    return value


def decode(data: bytes, name: str) -> str:
    """Return the text of a file, without a byte order mark.

    Raises:
        JobFileError: it is not UTF-8; the message names line and column of the first bad byte.
    """
    if data.startswith(_UTF_16):
        refuse(Origin(name, 1, 1), "is UTF-16 (or UTF-32). Save the file as UTF-8.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        message = f"byte 0x{error.object[error.start]:02x} is not UTF-8. Save the file as UTF-8."
        refuse(Origin(name, line, column), message)


def parse(text: str, place: Callable[[int, int], Origin]) -> Value:
    """Parse YAML text.

    Args:
        text: one document.
        place: the origin of a 1-based line and column.

    Raises:
        JobFileError: syntax, tags, duplicate keys, keys that are not text, or more data than the limits allow.
    """
    try:
        node = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        why = " ".join(filter(None, [error.context, error.problem]))
        begun = error.context_mark
        if (
            begun is not None
            and mark is not None
            and begun.line < mark.line
            and (error.context or "").startswith("while")
        ):
            # What is wrong is often where it began, such as a bracket that nothing closes.
            why += f", begun at {place(begun.line + 1, begun.column + 1)}"
        refuse(place(line, column), f"not YAML: {why}.{_of_variable(text, mark) or _remedy(why)}")
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        code = f"U+{int(error.character):04X}"
        refuse(place(line, column), f"character {code} is not allowed in YAML. Write it as an escape in double quotes.")
    reader = _NodeReader(place)
    value = Value(None, place(1, 1)) if node is None else reader.value(node)
    raise_all(reader.problems)
    return value


def _remedy(why: str) -> str:
    """Return what helps against what PyYAML says in words of its own; "" where its words say enough."""
    if "'\\t'" in why:
        return " YAML indents by spaces alone: write them instead of the tab."
    if "expected <block end>" in why:
        return " Keys of one mapping, and dashes of one list, begin in the same column."
    if "could not find expected ':'" in why:
        return " A key ends with `: `, and an item of a list begins with `- `."
    return ""


def _of_variable(text: str, mark: yaml.Mark | None) -> str:
    """Return what to do about a variable in `{...}` or `[...]`, where its brace is YAML's; "" where there is none."""
    if mark is None or text[max(mark.index - 1, 0) : mark.index + 1] != "${":
        return ""
    return " In `{...}` and `[...]` a `${NAME}` is cut at its brace: give the key a line of its own, as in `steps: ${NAME}`."


def retype(text: str) -> Any:
    """Return the value of plain text that came from the environment: `8` is a number, `true` a boolean."""
    for name, pattern, _ in _RESOLVERS:
        if pattern.match(text):
            return _SCALARS[name](text)
    return text


class _NodeReader:
    """Turns nodes into values and gathers what is wrong with them."""

    def __init__(self, place: Callable[[int, int], Origin]) -> None:
        self.place = place
        self.problems: list[JobProblem] = []
        self.count = 0
        self.open: set[int] = set()

    def value(self, node: yaml.Node, key: Origin | None = None) -> Value:
        origin = self._origin(node)
        self.count += 1
        if self.count > MAX_VALUES:
            more = f"aliases (`*name`) expand to more than {MAX_VALUES:,} values"
            refuse(origin, f"{more}. Write the values out, or use `matrix`.")
        if id(node) in self.open:
            refuse(origin, "an alias (`*name`) contains itself. Write the values out.")
        self.open.add(id(node))
        data = self._data(node, origin)
        self.open.discard(id(node))
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        changes = plain and type(data) in (int, float) and str(data) != node.value
        return Value(data, origin, key or origin, plain, written=node.value if changes else None)

    def _origin(self, node: yaml.Node) -> Origin:
        return self.place(node.start_mark.line + 1, node.start_mark.column + 1)

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
        self.problems.append(JobProblem(origin, "", message))


def _text(text: str) -> str:
    # JSON, which YAML includes, escapes a character beyond U+FFFF as a pair of surrogates.
    if not _HALF_PAIR.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _bool(text: str) -> bool:
    if not _RESOLVERS[0][1].match(text):
        raise ValueError(text)
    return text.lower() == "true"


_SCALARS: dict[str, Callable[[str], Any]] = {
    "str": _text,
    "null": lambda _text: None,
    "bool": _bool,
    "int": lambda text: int(text, 0) if text[:2] in ("0x", "0o") else int(text),
    "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
}


def render(document: Mapping[str, Any], origin: Mapping[str, Origin] | None = None) -> str:
    """Write a document as YAML that reads back the same, here and by any YAML 1.1 reader; a value a line.

    With `origin`, each line ends in a comment that says where its value came from.
    """
    lines = list(_lines(document, ""))
    width = min(max((len(text) for text, _ in lines), default=0), MAX_COMMENT_COLUMN)
    rendered = []
    for text, path in lines:
        place = None if origin is None else origin.get(dotted(path))
        rendered.append(f"{text}\n" if place is None else f"{text:<{width}}  # {' '.join(str(place).split())}\n")
    return "".join(rendered)


def scalar(value: Any) -> str:
    """Write one value on one line."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and _stays_text(value):
        return value
    style = '"' if isinstance(value, str) else None
    text = yaml.safe_dump(value, default_style=style, default_flow_style=True, width=float("inf"))
    return text.removesuffix("\n").removesuffix("\n...")


def _stays_text(text: str) -> bool:
    is_1_1_word = text.lower() in _YAML_1_1_WORDS
    return not is_1_1_word and isinstance(retype(text), str) and not re.match(r"\.|[-+.0-9_]*$", text)


def _lines(data: Any, indent: str, path: TreePath = ()) -> Iterator[tuple[str, TreePath]]:
    """Yield lines with the path of the value that each ends in; () where it ends in none."""
    pairs = data.items() if isinstance(data, Mapping) else enumerate(data)
    for key, value in pairs:
        head = f"{indent}-" if isinstance(data, list) else f"{indent}{scalar(str(key))}:"
        here: TreePath = (*path, key)
        if isinstance(value, dict | list) and value:
            yield head, ()
            yield from _lines(value, indent + "  ", here)
        else:
            yield f"{head} {scalar(value)}", here
