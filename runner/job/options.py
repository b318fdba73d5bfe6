"""Registries that job files refer to, by name, and options of what is in them: checked, described, and documented.

K is an option that a job may leave open, or say `auto` of. More points a round than ranks that evaluate them cost more than
they save: in one process a round of eight takes as long as eight steps. So K follows the mesh, once, when the job is read;
it is part of an item's id from then on.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from genrun.registry import refusals
from genrun.runner.job.errors import JobProblem
from genrun.runner.job.field_types import MAX_COUNT
from genrun.runner.job.schema import LaunchSpec, ParallelSpec
from genrun.runner.job.tree import Path as TreePath
from genrun.runner.job.tree import Value, bare, got, put, shown, unknown, unknown_option
from genrun.runner.job.validate import problems_of

LAUNCHERS = "genrun.runner.launch.registry"
"""Launchers are built on job files, so this package asks for them by name and imports none."""


class RegistryLike(Protocol):
    """Things found by name; imports a thing when it is asked for."""

    def names(self) -> Sequence[str]:
        """Return every name, sorted."""
        ...

    def get(self, name: str) -> Any:
        """Return the thing of that name."""
        ...


def _template_mistake(path: Path) -> str:
    return import_module(LAUNCHERS).get("slurm").mistake_in(path)


@dataclass(frozen=True)
class Registries:
    """Everything that is installed; tests pass their own.

    Attributes:
        adapters: of `genrun.adapters.registry`.
        solvers: frozen dataclasses whose fields are their options.
        launchers: of `launch.kind`; only their names are asked for.
        metrics: of `score`; only those that a job gives options are imported.
        caches: frozen dataclasses whose fields are their options.
        template_mistake: says what is wrong with a template of a batch script, or "".
    """

    adapters: RegistryLike
    solvers: RegistryLike
    launchers: RegistryLike
    metrics: RegistryLike
    caches: RegistryLike = field(default_factory=lambda: _registry("genrun.adapters.caches.registry"))
    template_mistake: Callable[[Path], str] = _template_mistake

    @classmethod
    def installed(cls) -> Registries:
        """Return the registries of this installation. Does not import torch."""
        return cls(
            adapters=_registry("genrun.adapters.registry"),
            solvers=_registry("genrun.solvers.registry"),
            launchers=_registry(LAUNCHERS),
            metrics=_registry("genrun.adapters.scorers.registry"),
        )


def _registry(module: str) -> Any:
    return import_module(module)


DEFAULT_SOLVER = "sequential"
NO_CACHE = "none"
OF_THE_JOB = {"solver": ("kind", "confidence")}
"""Section -> keys that are the job's own and no option of its kind; elsewhere the kind alone."""
NEWER = {"scale", "initial_width", "max_width", "initial_damping", "damping_rule", "damping_scope", "curvature_rule"}
"""Options that solvers of 0.1.0 did not have: at their defaults they are no part of an item."""

MAX_SEED = 2**63 - 1
"""The largest that torch takes; every other number of an option is at most MAX_COUNT."""


@dataclasses.dataclass(frozen=True)
class OptionDoc:
    """An option of a solver: its name, type, default and meaning."""

    name: str
    type: str
    default: Any
    help: str


def kind_options(
    root: Value, registry: RegistryLike, name: str, default: str
) -> tuple[dict[str, Any] | None, list[JobProblem]]:
    """Check a section of a document that is a kind and its options, such as `solver`.

    Args:
        root: the document.
        registry: of the kinds: dataclasses whose fields are their options.
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
        return None, [root.problem((name, "kind"), unknown(kind, registry.names(), name))]
    options = registry.get(kind)
    if kind_value is None and (problems := _without_kind(root, registry, name, section, kind)):
        return None, problems
    given, problems = checked(root, (name,), section, options)
    if given is None or problems:
        return None, problems
    instance = options(**given)
    return stated(kind, instance), []


def _without_kind(root: Value, registry: RegistryLike, name: str, section: Value, default: str) -> list[JobProblem]:
    """Name the options that a section's default kind does not have: whoever gives them has left out the kind."""
    known, problems = {each.name for each in _fields(registry.get(default))}, []
    for option in section.data:
        if option in registry.names():
            why = f"is no option but a kind. Write `{name}: {{kind: {option}}}`, its options beside it."
            problems.append(root.problem((name, option), why, key=True))
        elif option not in {*known, *OF_THE_JOB.get(name, ("kind",))}:
            why = f"no `kind` says what it is an option of. Write it, too: one of {', '.join(registry.names())}."
            problems.append(root.problem((name, option), why, key=True))
    return problems


def stated(kind: str, solver: Any) -> dict[str, Any]:
    """Return the kind and every option of a solver as an item says them.

    What was no option yet when items were first named is said only where it is not as it was then.
    """
    values = {each.name: getattr(solver, each.name) for each in _fields(type(solver))}
    quiet = [each.name for each in _fields(type(solver)) if each.name in NEWER and values[each.name] == _default(each)]
    return {"kind": kind, **{name: value for name, value in values.items() if name not in quiet}}


def checked(
    root: Value, at: TreePath, section: Value, options: type | None
) -> tuple[dict[str, Any] | None, list[JobProblem]]:
    """Check the keys of a section besides its `kind` as options.

    Args:
        root: the document.
        at: the path of the section.
        section: the mapping.
        options: a dataclass whose fields are the options; None where there are none.

    Returns:
        The options that are given, in the types of their fields, or None; and what is wrong.
    """
    known = [] if options is None else [field.name for field in _fields(options)]
    own = OF_THE_JOB.get(str(at[0]), ("kind",)) if len(at) == 1 else ("kind",)
    given = {name: value for name, value in section.data.items() if name not in own}
    problems = [root.problem((*at, name), unknown_option(name, known), key=True) for name in given if name not in known]
    data = {name: bare(value) for name, value in given.items() if name in known and value.wrong is None}
    beyond = {name: wrong for name, value in data.items() if (wrong := _beyond(name, value))}
    wrong = [root.problem((*at, name), why) for name, why in beyond.items()]
    if options is None:
        return None, problems + wrong
    values, error = _typed(options, data)
    if error is not None:
        wrong += problems_of(error, root, at)
    values = {name: value for name, value in values.items() if name not in beyond}
    wrong += [_refused(said, known, root, at) for said in refusals(options, values, given.keys() - values.keys())]
    return None if wrong else values, problems + wrong


def typed(options: type, given: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Check values for the fields of a dataclass of options, apart from any document.

    Returns:
        The values given, in the types of their fields, and what is wrong with them or "".
    """
    known = [field.name for field in _fields(options)]
    for name in given:
        if name not in known:
            return {}, unknown_option(name, known)
    values, error = _typed(options, given)
    details = [] if error is None else error.errors(include_url=False, include_context=False)
    wrong = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in details]
    wrong += refusals(options, values, given.keys() - values.keys())
    return {} if wrong else values, "; ".join(wrong)


def _typed(options: type, given: Mapping[str, Any]) -> tuple[dict[str, Any], ValidationError | None]:
    """Return the values that fit the fields of a dataclass, in the types of those, and what is wrong with the others."""
    try:
        model = model_of(options).model_validate_json(json.dumps(dict(given), default=str), strict=True)
    except ValidationError as error:
        others = given.keys() - {each["loc"][0] for each in error.errors()}
        return (_typed(options, {name: given[name] for name in others})[0] if len(others) < len(given) else {}), error
    return {name: getattr(model, name) for name in given}, None


def describe(solver: type) -> list[OptionDoc]:
    """Return the options of a solver, in the order of its fields, with the help of its docstring's `Attributes:`."""
    hints = typing.get_type_hints(solver)
    help_of = _attributes(inspect.getdoc(solver) or "")
    found = [
        OptionDoc(field.name, type_name(hints[field.name]), _default(field), help_of.get(field.name, ""))
        for field in _fields(solver)
    ]
    # A job that leaves K open gets the time ranks of its mesh.
    return [
        dataclasses.replace(each, type="int or auto", default="auto") if each.name == "workers" else each
        for each in found
    ]


def title(thing: Any) -> str:
    """Return the first line of a docstring, without its full stop."""
    return (inspect.getdoc(thing) or "").split("\n", 1)[0].rstrip(".")


@cache
def model_of(solver: type) -> type[BaseModel]:
    """Return a pydantic model of a solver's options."""
    hints = typing.get_type_hints(solver)
    fields: dict[str, Any] = {field.name: (hints[field.name], _default(field)) for field in _fields(solver)}
    return create_model(solver.__name__, __config__=ConfigDict(extra="forbid", allow_inf_nan=False), **fields)


def type_name(hint: Any) -> str:
    """Return a type as a job file knows it: `int`, `float or null`, `exact | skip`."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(str(argument) for argument in arguments)
    if type(None) in arguments:
        return " or ".join(type_name(part) for part in arguments if part is not type(None)) + " or null"
    return getattr(hint, "__name__", str(hint))


def _beyond(name: str, value: Any) -> str:
    """Say that a number is beyond what any option counts or measures; return "" where it is not."""
    most = MAX_SEED if "seed" in name else MAX_COUNT
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and abs(value) > most:
        return f"wanted at most {most}, got {shown(value)}."
    return ""


def _refused(message: str, known: list[str], root: Value, at: TreePath) -> JobProblem:
    """Return the problem for a ValueError("field: why") of the options themselves."""
    name, _, why = message.partition(": ")
    if name not in known:
        return root.problem(at, f"{message.rstrip('.')}.")
    value = root.find((*at, name))
    is_told = "got" in why or value is None or isinstance(value.data, list | dict)
    suffix = "" if is_told else f", got {got(value)}"
    return root.problem((*at, name), f"{why.rstrip('.')}{suffix}.")


def _fields(solver: type) -> tuple[dataclasses.Field[Any], ...]:
    return tuple(field for field in dataclasses.fields(solver) if field.init)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else ...


def _attributes(doc: str) -> dict[str, str]:
    """Return the entries of a Google-style `Attributes:` section, each on one line."""
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


AUTO = "auto"
OF_0_1 = 8
"""K of jobs that said none, up to 0.1.0."""


def with_workers(root: Value, registry: RegistryLike, kind: str, workers: int) -> Value:
    """Return a job with K filled in where its solver takes one, and it says none or `auto`."""
    section = root.get("solver")
    if section is not None and not section.is_mapping and section.data is not None:
        return root
    named = None if section is None else section.get("kind")
    kind = named.data if named is not None and isinstance(named.data, str) else kind
    if kind not in registry.names() or "workers" not in {each.name for each in dataclasses.fields(registry.get(kind))}:
        return root
    given = None if section is None else section.get("workers")
    if given is not None and (given.wrong is not None or given.data not in (None, AUTO)):
        return root
    origin = root.origin if given is None else given.origin
    return put(root, ("solver", "workers"), Value(workers, origin, None if given is None else given.key))


def time_ranks(
    launch: LaunchSpec,
    parallel: ParallelSpec,
    objective: Literal["throughput", "latency"],
    items: int,
) -> int:
    """Return how many ranks, or slots of ranks, are to share the points of an item's rounds.

    With `parallel.time: auto`, as many as each item gets where it is to be soonest, or where there are fewer items than
    slots; else 1, as every slot then makes items of its own.
    """
    if launch.kind == "inline":
        return 1
    if parallel.time != AUTO:
        return parallel.time
    ranks = ranks_of(launch)
    slots = (ranks or 1) // (parallel.cfg * parallel.ring * parallel.ulysses)
    if parallel.data != AUTO:
        return max(1, slots // parallel.data)
    if objective == "latency":
        return max(1, slots)
    # Groups are alike, so that the ranks of each divide the slots.
    most = max(1, slots // max(1, items))
    return max(size for size in range(1, most + 1) if slots % size == 0)


def ranks_of(launch: LaunchSpec) -> int | None:
    """Return the ranks that the section `launch` asks for, or None where it leaves them open."""
    if launch.processes != AUTO:
        return launch.processes
    gpus = gpus_of(launch)
    return launch.nodes * gpus if launch.kind == "slurm" and gpus else None


def gpus_of(launch: LaunchSpec) -> int:
    """Return the GPUs of a node: "h200:8" is 8."""
    return int(str(launch.gpus).rpartition(":")[2])
