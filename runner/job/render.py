"""A document as YAML text that reads back the same, by this package and by any YAML 1.1 reader."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from genrun.runner.job.problems import Origin
from genrun.runner.job.tree import Path, dotted
from genrun.runner.job.yaml import retype

_PLAIN = re.compile(r"[A-Za-z_/.][A-Za-z0-9_/.+-]*( [A-Za-z0-9_/.+-]+)*", re.ASCII)
_YAML_1_1_WORDS = frozenset({"y", "n", "yes", "no", "on", "off"})


def render(document: Mapping[str, Any], origin: Mapping[str, Origin] | None = None) -> str:
    """Write a document as YAML, a value a line; with `origin`, each line ends in a comment that says where from."""
    lines = list(_lines(document, ""))
    width = min(max((len(text) for text, _ in lines), default=0), 60)
    if origin is None:
        return "".join(f"{text}\n" for text, _ in lines)
    return "".join(_with_origin(text, origin.get(dotted(path)), width) for text, path in lines)


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


def _lines(data: Any, indent: str, path: Path = ()) -> Iterator[tuple[str, Path]]:
    """Lines with the path of the value that each ends in; () where it ends in none."""
    pairs = data.items() if isinstance(data, Mapping) else enumerate(data)
    for key, value in pairs:
        head = f"{indent}-" if isinstance(data, list) else f"{indent}{scalar(str(key))}:"
        here: Path = (*path, key)
        if isinstance(value, dict | list) and value:
            yield head, ()
            yield from _lines(value, indent + "  ", here)
        else:
            yield f"{head} {scalar(value)}", here


def _with_origin(text: str, origin: Origin | None, width: int) -> str:
    return f"{text}\n" if origin is None else f"{text:<{width}}  # {' '.join(str(origin).split())}\n"
