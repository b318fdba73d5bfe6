"""Types of the arguments of a pipeline's call, by its annotations: what a job's option can be, and what it cannot.

Annotations are a hint in Python, and some of diffusers' are too narrow: a number is taken for a number of another type, a
list for a tuple, and None for anything. What has no annotation, one that its default does not fit, or one that is not plain,
such as a tensor, is not checked.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from genrun.adapters.checkpoint.pipeline_classes import argument_of, methods

Check = Callable[[Any], bool]

_SCALARS: dict[str, Check] = {
    "int": lambda value: isinstance(value, int | float),
    "float": lambda value: isinstance(value, int | float),
    "str": lambda value: isinstance(value, str),
    # Anything has a truth value, but "no" has another than is meant.
    "bool": lambda value: isinstance(value, int | float),
    "dict": lambda value: isinstance(value, dict),
    "list": lambda value: isinstance(value, list),
    "tuple": lambda value: isinstance(value, list),
    "None": lambda value: value is None,
}
_LISTS = ("list", "tuple", "Iterable", "Sequence")

LEAST = {"max_sequence_length": 1, "decode_chunk_size": 1, "strength": 0}
"""Arguments of which fewer, or less, is nothing."""

WHOLE = ("clip_skip", "decode_chunk_size", "max_sequence_length")
"""Arguments that count or index, where a fraction fails in the call."""

RATE = "frame_rate"

_TUPLE = re.compile(r"(?:(?:typing\.)?Optional\[)?(?:typing\.)?[Tt]uple\b")


def wrong_value(pipeline: str, name: str, value: Any) -> str:
    """Say why a value of a job can be no argument of a pipeline's call; "" where it can."""
    annotation, default = argument_of(pipeline, name)
    check = check_of(annotation)
    # An annotation that its own default does not fit says nothing.
    is_true = check is not None and (default is None or default is ... or check(_as_job(default)))
    if value is not None and check is not None and is_true and not check(value):
        return f"wanted {annotation}, as {pipeline} declares it"
    if not isinstance(value, int | float):
        return ""
    if name in WHOLE and isinstance(value, float):
        return "wanted a whole number"
    if value < LEAST.get(name, value):
        return f"wanted at least {LEAST[name]}"
    if name == RATE and value <= 0:
        return "wanted more than 0"
    is_above = name == "strength" and value > 1 and "strength > 1" in _checks(pipeline)
    return "wanted at most 1" if is_above else ""


def as_declared(pipeline: str, name: str, value: Any) -> Any:
    """Return a value of a job as a pipeline's call takes it: a list as a tuple, where a tuple alone is declared.

    YAML knows no tuples, and Stable Diffusion XL adds its sizes to one.
    """
    annotation, _ = argument_of(pipeline, name)
    only_tuple = _TUPLE.match(annotation) and "list[" not in annotation.lower()
    return tuple(value) if isinstance(value, list) and only_tuple else value


@cache
def check_of(annotation: str) -> Check | None:
    """Return what tells whether a value fits an annotation; None where that cannot be told."""
    try:
        return _check(ast.parse(annotation, mode="eval").body) if annotation else None
    except SyntaxError:
        return None


def _check(node: ast.expr) -> Check | None:
    """Return the check of a part of an annotation; None for what is not plain, which any value may be."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _any_of([node.left, node.right])
    if isinstance(node, ast.Subscript):
        name = ast.unparse(node.value).rpartition(".")[2]
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name in ("Union", "Optional"):
            return _any_of(parts)
        if name == "Literal":
            values = [ast.literal_eval(part) for part in parts]
            return lambda value: value in values
        name = name.lower() if name in ("List", "Tuple", "Dict") else name
        return _SCALARS["dict"] if name == "dict" else _list_of(name, parts) if name in _LISTS else None
    return _SCALARS.get(ast.unparse(node).replace("List", "list").replace("Dict", "dict"))


def _any_of(parts: list[ast.expr]) -> Check | None:
    checks = [_check(part) for part in parts]
    known = [check for check in checks if check is not None]
    return None if len(known) < len(checks) else lambda value: any(check(value) for check in known)


def _list_of(name: str, parts: list[ast.expr]) -> Check | None:
    ends = [part for part in parts if not (isinstance(part, ast.Constant) and part.value is Ellipsis)]
    checks = [_check(part) for part in ends]
    if None in checks:
        return _SCALARS["list"]
    # A tuple of one type is written for one of several: tuple[int] = (512, 512).
    size = len(ends) if name == "tuple" and len(ends) == len(parts) > 1 else None

    def fits(value: Any) -> bool:
        if not isinstance(value, list) or (size is not None and len(value) != size):
            return False
        return all(each is None or any(check(each) for check in checks if check) for each in value)

    return fits


def _as_job(value: Any) -> Any:
    """Return a value as a job has it: YAML knows no tuples."""
    return [_as_job(each) for each in value] if isinstance(value, list | tuple) else value


@cache
def _checks(pipeline: str) -> str:
    found = methods(pipeline).get("check_inputs")
    return "" if found is None else ast.unparse(found)
