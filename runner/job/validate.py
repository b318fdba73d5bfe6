"""A document against the schema: the job it holds, or pydantic's errors in genrun's words, each with its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from genrun.runner.job.errors import JobProblem
from genrun.runner.job.field_types import WANTED
from genrun.runner.job.layers import MAX_SEEDS
from genrun.runner.job.schema import (
    PROMPT_TAGS,
    CocoCaptions,
    GateSpec,
    IpAdapterSpec,
    JobSpec,
    LaunchSpec,
    LoraSpec,
    ModelSpec,
    NightlySpec,
    NotifySpec,
    OutputSpec,
    ParallelSpec,
    PreviewSpec,
    PromptFile,
    PromptSpec,
    PromptSuite,
    PromptTemplate,
    QuantizationSpec,
    SamplingSpec,
    StepSpec,
    VaeSpec,
)
from genrun.runner.job.tree import ELSEWHERE, Path, Value, bare, dotted, got, unknown_option

Section = TypeVar("Section", bound=BaseModel)

ANY = "*"
"""Stands for any key in `SECTIONS`."""

SECTIONS: Mapping[Path, type[BaseModel]] = {
    (): JobSpec,
    ("model",): ModelSpec,
    ("model", "vae"): VaeSpec,
    ("model", "quantization"): QuantizationSpec,
    ("model", "loras", 0): LoraSpec,
    ("model", "ip_adapter"): IpAdapterSpec,
    ("prompts",): PromptFile,
    ("sampling",): SamplingSpec,
    ("parallel",): ParallelSpec,
    ("launch",): LaunchSpec,
    ("launch", "then", 0): StepSpec,
    ("output",): OutputSpec,
    ("output", "previews"): PreviewSpec,
    ("gates", ANY): GateSpec,
    ("nightly",): NightlySpec,
    ("notify",): NotifySpec,
    ("nightly", "notify"): NotifySpec,
}
"""Sections whose keys are all known, to name the one that was probably meant."""

_MISSING = {
    "model": "missing, such as `model: demo-video`. `genrun models` lists what there is.",
    "prompts": "missing, such as `prompts: {file: prompts.txt}`.",
}
_WANTED_AT = {
    "model": "a name or a mapping",
    "prompts": "a list of prompts, or a file of them such as {file: prompts.txt}",
    "solver": "a name or a mapping",
    "output.previews": "true, false or a mapping such as {decoder: FOLDER}",
    "seeds": f"a list, a range such as 0..9, or how many, 1 to {MAX_SEEDS:,}",
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
_BOUNDS = {
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
}


def job_of(root: Value) -> tuple[JobSpec | None, list[JobProblem]]:
    """Check a document against the schema alone; return the job, or None, and what is wrong."""
    # Keys with nothing behind them (`seeds:`) mean the default, but for those that are none.
    known = JobSpec.model_fields
    data = {
        key: bare(value)
        for key, value in root.data.items()
        if value.data is not None or value.wrong or key not in known
    }
    try:
        return JobSpec.model_validate_json(json.dumps(data), strict=True), []
    except ValidationError as error:
        return None, problems_of(error, root)


def section(root: Value, name: str, schema: type[Section]) -> Section | None:
    """Return one section, for what needs it before the whole is right; None when it is wrong, or a missing `model`."""
    value = root.get(name)
    if (value is None and name == "model") or (value is not None and value.wrong):
        return None
    data = {} if value is None or value.data is None else bare(value)
    try:
        return schema.model_validate_json(json.dumps(data), strict=True)
    except ValidationError:
        return None


def problems_of(error: ValidationError, root: Value, prefix: Path = ()) -> list[JobProblem]:
    """Translate every error of one validation, except of values that are wrong already.

    Args:
        error: of pydantic.
        root: the document that was validated.
        prefix: path of the validated value in the document.
    """
    problems = []
    for detail in error.errors(include_url=False):
        path = (*prefix, *_path(detail["loc"]))
        # A list whose elements are wrong is called too short as well.
        is_echo = detail["type"] == "too_short" and bool(detail["input"])
        if root.nearest(path).wrong is None and not is_echo:
            problems.append(_problem(detail, root, path))
    return problems


def _path(loc: tuple[int | str, ...]) -> Path:
    if loc[:1] == ("prompts",):
        return ("prompts", *(part for part in loc[1:] if part not in PROMPT_TAGS))
    return loc


def _problem(detail: ErrorDetails, root: Value, path: Path) -> JobProblem:
    kind = detail["type"]
    if kind == "extra_forbidden" and path[:-1] == ("sampling",) and path[-1] in PromptSpec.model_fields:
        message = f"goes with a prompt: prompts: [{{prompt: ..., {path[-1]}: ...}}]."
        return root.problem(path, message, key=True)
    if kind == "extra_forbidden":
        name, known = str(path[-1]), _known_keys(root, path[:-1])
        of_section = "" if path[:-1] else _of_section(name, known)
        return root.problem(path, of_section or unknown_option(name, known), key=True)
    if kind == "missing":
        return root.problem(path, _MISSING.get(dotted(path), "missing."))
    wanted = _WANTED_AT.get(dotted(path)) if kind in ("model_type", "tuple_type") else None
    found = root.find(path)
    if path == ("seeds",) and found is not None and type(found.data) is int and 0 < found.data <= MAX_SEEDS:
        # In a matrix it would say as well how many seeds each cell has as which one.
        wanted = "a list in a matrix, such as [0]"
    return root.problem(path, f"wanted {wanted or _wanted(detail)}, got {got(found)}.")


def _of_section(name: str, known: list[str]) -> str:
    """Say in which section a key belongs that the job itself does not have; "" where it is in none."""
    meant = ELSEWHERE.get(name, name)
    if meant in known or meant == "kind":
        return ""
    sections = [at for at in SECTIONS if len(at) == 1 and at != ("prompts",) and meant in SECTIONS[at].model_fields]
    return (
        f"unknown option. Did you mean {' or '.join(repr(dotted((*at, meant))) for at in sections)}?"
        if sections
        else ""
    )


def _known_keys(root: Value, path: Path) -> list[str]:
    at = tuple(0 if isinstance(part, int) else part for part in path)
    if at == ("prompts", 0):
        return list(PromptSpec.model_fields)
    schema = SECTIONS.get(at) or SECTIONS.get((*at[:-1], ANY))
    if at == ("prompts",):
        by_key = {"suite": PromptSuite, "coco": CocoCaptions, "template": PromptTemplate}
        schema = next((each for key, each in by_key.items() if root.find(("prompts", key)) is not None), PromptFile)
    return [] if schema is None else list(schema.model_fields)


def _wanted(detail: ErrorDetails) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "literal_error":
        return context["expected"].replace("'", "")
    if kind == "string_pattern_mismatch":
        return "up to 80 letters, digits, `.`, `_` and `-`, the first a letter or digit"
    if kind in _BOUNDS:
        return _BOUNDS[kind].format(**context)
    return detail["msg"] if kind == WANTED else _WANTED.get(kind, detail["msg"])
