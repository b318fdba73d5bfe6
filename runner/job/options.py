"""Options of a solver, cache or metric, checked against the fields of a dataclass; names and docs of those fields."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from genrun.runner.job.problems import Problem
from genrun.runner.job.registries import Registry
from genrun.runner.job.tree import Value, bare, dotted
from genrun.runner.job.values import MAX_COUNT
from genrun.runner.job.wording import got, place, problems_of, shown, unknown, unknown_option

SECTION = "solver"
DEFAULT_KIND = "sequential"
MAX_OPTION = MAX_COUNT
MAX_SEED = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class OptionDoc:
    """One option of a solver: its name, type, default and what it means."""

    name: str
    type: str
    default: Any
    help: str


def check(
    root: Value, registry: Registry, name: str = SECTION, default: str = DEFAULT_KIND
) -> tuple[dict[str, Any] | None, list[Problem]]:
    """Check the section `solver` of a document, or another that is a kind and its options.

    Args:
        root: the document.
        registry: of the kinds.
        name: of the section.
        default: its kind where the section gives none.

    Returns:
        The kind and every option with its default filled in, or None; and what is wrong.
    """
    section = root.get(name)
    if section is None or (section.data is None and section.wrong is None):
        section = Value({}, root.origin)
    kind_value = section.get("kind")
    kind = default if kind_value is None else kind_value.data
    if not isinstance(section.data, dict) or not isinstance(kind, str):
        return None, []
    if kind not in registry.names():
        at = (name, "kind")
        return None, [Problem(place(root, at), dotted(at), unknown(kind, registry.names(), name))]
    given = {option: value for option, value in section.data.items() if option != "kind"}
    values, problems = _typed(registry.get(kind), given, root, name)
    return (None if values is None else {"kind": kind, **values}), problems


def typed(options: type, given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Check values for the fields of a dataclass of options, apart from any document.

    Returns:
        The values given, in the types of their fields, and what is wrong with them or "".
    """
    known = [field.name for field in _fields(options)]
    for name in given:
        if name not in known:
            return {}, unknown_option(name, known)
    try:
        model = model_of(options).model_validate_json(json.dumps(dict(given), default=str), strict=True)
        options(**{name: getattr(model, name) for name in given})
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False)
        return {}, "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in details)
    except ValueError as error:
        return {}, str(error)
    return {name: getattr(model, name) for name in given}, ""


def describe(solver: type) -> list[OptionDoc]:
    """The options of a solver, in the order of its fields, with the help of its docstring's `Attributes:`."""
    hints = typing.get_type_hints(solver)
    help_of = _attributes(inspect.getdoc(solver) or "")
    return [
        OptionDoc(field.name, type_name(hints[field.name]), _default(field), help_of.get(field.name, ""))
        for field in _fields(solver)
    ]


def title(thing: Any) -> str:
    """The first line of a docstring, without its full stop."""
    return (inspect.getdoc(thing) or "").split("\n", 1)[0].rstrip(".")


@cache
def model_of(solver: type) -> type[BaseModel]:
    """A pydantic model of a solver's options."""
    hints = typing.get_type_hints(solver)
    fields: dict[str, Any] = {field.name: (hints[field.name], _default(field)) for field in _fields(solver)}
    return create_model(solver.__name__, __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)


def type_name(hint: Any) -> str:
    """A type as a job file knows it: `int`, `float or null`, `exact | skip`."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(str(argument) for argument in arguments)
    if type(None) in arguments:
        return " or ".join(type_name(part) for part in arguments if part is not type(None)) + " or null"
    return getattr(hint, "__name__", str(hint))


def _typed(
    solver: type, given: Mapping[str, Value], root: Value, section: str
) -> tuple[dict[str, Any] | None, list[Problem]]:
    known = [field.name for field in _fields(solver)]
    problems = []
    for name in given:
        if name not in known:
            at = (section, name)
            problems.append(Problem(place(root, at, key=True), dotted(at), unknown_option(name, known)))
    options = {name: bare(value) for name, value in given.items() if name in known and value.wrong is None}
    beyond = [(name, wrong) for name, value in options.items() if (wrong := _beyond(name, value))]
    if beyond:
        found = [Problem(place(root, (section, name)), f"{section}.{name}", wrong) for name, wrong in beyond]
        return None, problems + found
    try:
        typed = model_of(solver).model_validate_json(json.dumps(options), strict=True)
        instance = solver(**{name: getattr(typed, name) for name in known})
    except ValidationError as error:
        return None, problems + problems_of(error, root, (section,))
    except ValueError as error:
        return None, [*problems, _refused(str(error), known, root, section)]
    return (None if problems else {name: getattr(instance, name) for name in known}), problems


def _beyond(name: str, value: Any) -> str:
    """Say that a number is beyond what any option counts or measures, or ""."""
    most = MAX_SEED if "seed" in name else MAX_OPTION
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and abs(value) > most:
        return f"wanted at most {most}, got {shown(value)}."
    return ""


def _refused(message: str, known: list[str], root: Value, section: str) -> Problem:
    """The problem for a ValueError("field: why") of the solver itself."""
    name, _, why = message.partition(": ")
    if name not in known:
        return Problem(place(root, (section,)), section, f"{message.rstrip('.')}.")
    at = (section, name)
    value = root.find(at)
    suffix = "" if "got" in why or value is None else f", got {got(value)}"
    return Problem(place(root, at), dotted(at), f"{why.rstrip('.')}{suffix}.")


def _fields(solver: type) -> tuple[dataclasses.Field[Any], ...]:
    return tuple(field for field in dataclasses.fields(solver) if field.init)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else ...


def _attributes(doc: str) -> dict[str, str]:
    """The entries of a Google-style `Attributes:` section, each on one line."""
    _, _, section = doc.partition("Attributes:\n")
    entries: dict[str, str] = {}
    name = ""
    for line in section.split("\n"):
        entry = re.match(r" {4}(\w+): (.*)", line)
        if entry:
            name = entry[1]
            entries[name] = entry[2]
        elif name and line.startswith(" " * 8):
            entries[name] += " " + line.strip()
        else:
            name = ""
    return entries
