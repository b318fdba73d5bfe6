"""Pydantic's errors in genrun's words: what was got, what is wanted, and the key that was probably meant."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from genrun.registry import did_you_mean
from genrun.runner.job.problems import Origin, Problem
from genrun.runner.job.schema import (
    PROMPT_TAGS,
    CocoCaptions,
    GateSpec,
    JobSpec,
    LaunchSpec,
    ModelSpec,
    NightlySpec,
    NotifySpec,
    OutputSpec,
    ParallelSpec,
    PromptFile,
    PromptSuite,
    QuantizationSpec,
    SamplingSpec,
    StepSpec,
    VaeSpec,
)
from genrun.runner.job.tree import Path, Value, bare, dotted
from genrun.runner.job.values import WANTED

ANY = "*"
"""Stands for any key in `SECTIONS`."""

SECTIONS: Mapping[Path, type[BaseModel]] = {
    (): JobSpec,
    ("model",): ModelSpec,
    ("model", "vae"): VaeSpec,
    ("model", "quantization"): QuantizationSpec,
    ("prompts",): PromptFile,
    ("sampling",): SamplingSpec,
    ("parallel",): ParallelSpec,
    ("launch",): LaunchSpec,
    ("launch", "then", 0): StepSpec,
    ("output",): OutputSpec,
    ("gates", ANY): GateSpec,
    ("nightly",): NightlySpec,
    ("nightly", "notify"): NotifySpec,
}

_MISSING = {
    "model": "missing, such as `model: demo-video`. `genrun models` lists what there is.",
    "prompts": "missing, such as `prompts: {file: prompts.txt}`.",
}

_WANTED_AT = {
    "model": "a name or a mapping",
    "prompts": "a list of prompts, or a file of them such as {file: prompts.txt}",
    "solver": "a name or a mapping",
}

_WANTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "string_too_short": "text that is not empty",
    "too_short": "a list that is not empty",
}


def problems_of(error: ValidationError, root: Value, prefix: Path = ()) -> list[Problem]:
    """Translate every error of one validation, except of values that are wrong already.

    Args:
        error: of pydantic.
        root: the document that was validated.
        prefix: path of the validated value in the document.
    """
    problems = []
    for detail in error.errors(include_url=False):
        path = (*prefix, *_path(detail["loc"]))
        if root.nearest(path).wrong is None and not _is_echo(detail):
            problems.append(_problem(detail, root, path))
    return problems


def unknown(value: Value | str, known: Sequence[str], what: str) -> str:
    """Say that a name is no `what`, which one was probably meant, and which there are."""
    name = value if isinstance(value, str) else str(value.data)
    text = shown(name) if isinstance(value, str) else got(value)
    return f"there is no {what} {text}.{did_you_mean(name, known)} There are: {', '.join(known) or 'none'}."


def unknown_option(name: str, known: Sequence[str]) -> str:
    """Say that an option is unknown and which one was probably meant, or which there are when none is close."""
    meant = did_you_mean(name, known)
    there_are = f" There are: {', '.join(known)}." if known else " There are none."
    return f"unknown option.{meant or there_are}"


def shown(data: Any) -> str:
    """A value as messages show it: short, on one line, control characters escaped."""
    if isinstance(data, dict):
        return "a mapping"
    if isinstance(data, list | tuple):
        return "a list" if data else "an empty list"
    if data is None:
        return "nothing"
    if isinstance(data, str):
        text = repr(data)
        return text if len(text) <= 60 else f"{text[:56]}...{text[-1]}"
    return json.dumps(data) if isinstance(data, bool) else str(data)[:60]


def got(value: Value | None) -> str:
    """The value that was got, as messages show it; a secret as the variable it came from."""
    if value is None:
        return "nothing"
    return shown(value.source if value.source is not None else bare(value))


def place(root: Value, path: Path, *, key: bool = False) -> Origin:
    """Where the value at `path` (or its key) is written; where it would be, when it is missing."""
    found = root.nearest(path)
    return found.key or found.origin if key else found.origin


def _problem(detail: ErrorDetails, root: Value, path: Path) -> Problem:
    kind = detail["type"]
    if kind == "extra_forbidden":
        section = tuple(0 if isinstance(part, int) else part for part in path[:-1])
        named = SECTIONS.get(section) or SECTIONS.get((*section[:-1], ANY))
        schema = _prompts_schema(root) if section == ("prompts",) else named
        known = [] if schema is None else list(schema.model_fields)
        return Problem(place(root, path, key=True), dotted(path), unknown_option(str(path[-1]), known))
    if kind == "missing":
        return Problem(place(root, path), dotted(path), _MISSING.get(dotted(path), "missing."))
    wanted = _WANTED_AT.get(dotted(path)) if kind == "model_type" else None
    message = f"wanted {wanted or _wanted(detail)}, got {got(root.find(path))}."
    return Problem(place(root, path), dotted(path), message)


def _prompts_schema(root: Value) -> type[BaseModel]:
    """What the section `prompts` is, by the key that tells."""
    if root.find(("prompts", "suite")) is not None:
        return PromptSuite
    return PromptFile if root.find(("prompts", "coco")) is None else CocoCaptions


def _wanted(detail: ErrorDetails) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in _WANTED:
        return _WANTED[kind]
    if kind == WANTED:
        return detail["msg"]
    if kind == "literal_error":
        return context["expected"].replace("'", "")
    if kind == "string_pattern_mismatch":
        return "up to 80 letters, digits, `.`, `_` and `-`, the first a letter or digit"
    bounds = {"greater_than_equal": "at least {ge}", "greater_than": "more than {gt}"}
    bounds |= {"less_than_equal": "at most {le}", "less_than": "less than {lt}"}
    return bounds[kind].format(**context) if kind in bounds else detail["msg"]


def _path(loc: tuple[int | str, ...]) -> Path:
    if loc[:1] == ("prompts",) and loc[1:2] and loc[1] in PROMPT_TAGS:
        return ("prompts", *loc[2:])
    return loc


def _is_echo(detail: ErrorDetails) -> bool:
    """Whether an error only repeats that the elements of a list are wrong."""
    return detail["type"] == "too_short" and bool(detail["input"])
