"""What no value of a job may be, wherever it stands: text that no file or shell can hold, numbers without a meaning."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace

from genrun.runner.job.problems import Problem
from genrun.runner.job.prompts import wrong_text
from genrun.runner.job.tree import Path, Value, dotted, section_path
from genrun.runner.job.wording import got

MAX_WHOLE = 2**64
"""Beyond it no library takes a number."""

MAX_KEY = 200

OPEN = (("sampling", "options"), ("sampling", "scheduler"), ("model", "quantization"))
"""Sections with keys of any name, whose values are checked by nobody else."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def settled(root: Value) -> tuple[Value, list[Problem]]:
    """Return a document in which values that cannot be meant are `wrong`, and what is wrong with its keys."""
    return _settled(root, ()), list(_keys(root, ()))


def _settled(value: Value, path: Path) -> Value:
    if isinstance(value.data, dict):
        return replace(value, data={key: _settled(child, (*path, key)) for key, child in value.data.items()})
    if isinstance(value.data, list):
        children = enumerate(value.data)
        return replace(value, data=[_settled(child, (*path, index)) for index, child in children])
    wrong = "" if value.wrong else _wrong(value, path)
    return replace(value, data=None, wrong=wrong) if wrong else value


def _wrong(value: Value, path: Path) -> str:
    """Why a value can stand nowhere, or ""."""
    data = value.data
    if isinstance(data, str):
        return _wrong_prompt(data) if _is_prompt(path) else _wrong_line(data)
    # Elsewhere the schema knows what is wanted, and says so.
    if isinstance(data, float) and not math.isfinite(data) and section_path(path)[:2] in OPEN:
        return f"wanted a finite number, got {got(value)}."
    if isinstance(data, int) and abs(data) > MAX_WHOLE:
        return f"wanted a number of reasonable size, got {got(value)}."
    return ""


def _is_prompt(path: Path) -> bool:
    """Whether a value is read by a text encoder, which takes any character."""
    path = section_path(path)
    return (path[:1] == ("prompts",) and len(path) == 2 and isinstance(path[1], int)) or path[-1:] == (
        "negative_prompt",
    )


def _wrong_prompt(text: str) -> str:
    return wrong_text(text)


def _wrong_line(text: str) -> str:
    wrong = wrong_text(text)
    if wrong or not (found := _CONTROL.search(text)):
        return wrong
    return f"has the control character U+{ord(found[0]):04X}. Remove it."


def _keys(value: Value, path: Path) -> Iterator[Problem]:
    for key, child in value.children():
        here: Path = (*path, key)
        # Of the document itself every key is known.
        if path and isinstance(key, str) and (len(key) > MAX_KEY or _UNWRITABLE.search(key)):
            why = f"longer than {MAX_KEY} characters" if len(key) > MAX_KEY else "with a control character"
            yield Problem(child.key or child.origin, dotted(path), f"has a key {why}. Remove it.")
        yield from _keys(child, here)
