"""A job file over its parents (`extends`), with the environment filled in (`${VAR}`) and options (`--set`) laid over it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from genrun.adapters.files import is_there, unusable
from genrun.runner.job import yaml
from genrun.runner.job.errors import JobProblem, Origin, raise_all, refuse
from genrun.runner.job.files import located
from genrun.runner.job.schema import GateSpec
from genrun.runner.job.tree import Value, dotted, merge, put, shown

EXTENDS = "extends"
MAX_PARENTS = 32
"""Files that may extend each other, one after the other: far more than anybody can follow."""

MAX_SHOWN_SET = 80
"""Characters of a `--set` that messages repeat as its origin."""

MIN_SECRET = 4
"""Characters of a secret that is looked for in other texts: a shorter one would be found in innocent words."""

SHORTHANDS = {"solver": "kind", "cache": "kind", "launch": "kind", "sampling.scheduler": "kind", "parallel": "time"}
"""Sections that may be given as the text of one of their keys; `model` is the name of an adapter or a checkpoint."""

PREVIEWS = "output.previews"
"""May be true, for all of its defaults, or false, for none."""

PROMPT_FILES = (".txt", ".csv", ".jsonl")
"""Suffixes of the files that `prompts: FILE` is short for."""

MAX_SEEDS = 1_000_000
"""Most seeds of a range: a job has no more items."""

_RANGE = re.compile(r"([0-9]{1,19})\s*\.\.\s*([0-9]{1,19})", re.ASCII)
_VARIABLE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::([-?])([^}]*))?\})?")
_SECRET = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|\d|$)", re.IGNORECASE)


def read_job(path: Path, environ: Mapping[str, str], adapters: Sequence[str], children: tuple[Path, ...] = ()) -> Value:
    """Read a job file over its parents.

    Args:
        path: the job file; messages call it by this path.
        environ: the environment, for `${NAME}`.
        adapters: names that the shorthand `model: NAME` knows.
        children: the files that extend this one, resolved.

    Raises:
        JobFileError: a file cannot be read, is not plain YAML, or extends itself.
    """
    return over_parents(fill(yaml.read(path, str(path)), environ), path, environ, adapters, children)


def over_parents(
    root: Value, path: Path, environ: Mapping[str, str], adapters: Sequence[str], children: tuple[Path, ...] = ()
) -> Value:
    """Lay a job over its parents, which are relative to the folder of `path`; other arguments and errors as `read_job`."""
    sections = dict(root.data)
    extends = sections.pop(EXTENDS, None)
    root = expand(replace(root, data=sections), adapters)
    if extends is None:
        return root
    if not isinstance(extends.data, str) or not extends.data or extends.source is not None:
        refuse(extends.origin, extends.wrong or "wanted the name of one job file, relative to this one.", EXTENDS)
    parent = Path(os.path.normpath(located(extends.data, path.parent)))
    children = (*children, path.resolve())
    wrong = _wrong_parent(parent, children)
    if wrong:
        refuse(extends.origin, wrong, EXTENDS)
    return merge(read_job(parent, environ, adapters, children), root)


def _wrong_parent(parent: Path, children: Sequence[Path]) -> str:
    """Return why a job file cannot be extended, or ""."""
    reason = unusable(parent)
    if reason:
        return f"{shown(str(parent))} cannot be looked at: {reason}."
    if parent.resolve() in children:
        return f"{parent} extends itself. Remove one of the `extends`."
    if len(children) > MAX_PARENTS:
        return f"more than {MAX_PARENTS} files extend each other. Write them together."
    # A folder or a pipe is told as such where it is read.
    return "" if is_there(parent) else f"there is no file {str(parent)!r}."


def apply_sets(
    root: Value, sets: Sequence[str], environ: Mapping[str, str], adapters: Sequence[str]
) -> tuple[Value, list[JobProblem]]:
    """Lay options `a.b=value` over a job, each value read as YAML.

    Returns:
        The job, and a problem for each option that changes what the matrix varies anyway.

    Raises:
        JobFileError: an option is not of that form.
    """
    parsed = [_parse_set(text) for text in sets]
    raise_all(_below_lists(root, parsed))
    # Containers before what is in them, and a kind before its options; otherwise in the order given.
    for path, value in sorted(parsed, key=lambda pair: (len(pair[0]), pair[0][-1] != "kind")):
        root = expand(put(root, path, fill(value, environ)), adapters)
    matrix = root.get("matrix")
    axes = list(matrix.data) if matrix is not None and matrix.is_mapping else []
    overruled = "the matrix varies {0}, so this would change nothing. Set matrix.{0}=[...] instead."
    return root, [
        JobProblem(value.origin, dotted(path), overruled.format(axis))
        for path, value in parsed
        for axis in axes
        if path[: axis.count(".") + 1] == tuple(axis.split("."))
    ]


def _below_lists(root: Value, parsed: Sequence[tuple[tuple[str, ...], Value]]) -> Iterator[JobProblem]:
    """Yield a problem for each option that sets a key of a list, which has none."""
    given = {path for path, _ in parsed}
    for path, value in parsed:
        for end in range(1, len(path)):
            found = root.find(path[:end])
            if path[:end] not in given and found is not None and isinstance(found.data, list):
                name = dotted(path[:end])
                message = f"{name} is a list here, which has no keys. Set all of it: --set '{name}=...'."
                yield JobProblem(value.origin, dotted(path), message)
                break


def _parse_set(text: str) -> tuple[tuple[str, ...], Value]:
    origin = Origin(f"--set {text if len(text) <= MAX_SHOWN_SET else text[: MAX_SHOWN_SET - 1] + '…'}")
    name, equals, value = text.partition("=")
    path = set_path(name.strip())
    if not equals or not all(path) or len(path) > yaml.MAX_DEPTH:
        refuse(origin, "wanted a path and a value, such as --set solver.workers=4.")
    return path, yaml.parse(value, lambda _line, _column: origin)


def set_path(name: str) -> tuple[str, ...]:
    """Return the path of a dotted name; axes of a matrix and metrics of gates, which have dots too, are one key."""
    head, _, rest = name.partition(".")
    if head == "gates" and rest:
        metric, _, rule = rest.rpartition(".")
        return (head, metric, rule) if metric and rule in GateSpec.model_fields else (head, rest)
    return (head, rest) if head == "matrix" and rest else tuple(name.split("."))


def expand(root: Value, adapters: Sequence[str]) -> Value:
    """Write shorthands out: `solver: ropa`, `model: demo-video`, `then: [score]`; also in values of the matrix."""
    if not root.is_mapping:
        return root
    for section in ("model", "prompts", "seeds", PREVIEWS, *SHORTHANDS):
        root = _change(root, section.split("."), lambda value, at=section: _expand_section(at, value, adapters))
    root = _change(root, ("launch", "then"), _expand_steps)
    return _change(root, ("matrix",), lambda matrix: _expand_matrix(matrix, adapters))


def _change(root: Value, path: Sequence[str], change: Callable[[Value], Value]) -> Value:
    """Return the tree with the value at `path` changed, where there is one."""
    value = root.get(path[0])
    if value is None:
        return root
    changed = change(value) if len(path) == 1 else _change(value, path[1:], change)
    return root if changed is value else replace(root, data={**root.data, path[0]: changed})


def _expand_section(section: str, value: Value, adapters: Sequence[str]) -> Value:
    if section == "seeds":
        return _expand_seeds(value)
    if section == PREVIEWS and isinstance(value.data, bool):
        return replace(value, data={} if value.data else None, plain=False)
    if section == "prompts":
        is_file = isinstance(value.data, str) and value.data.lower().endswith(PROMPT_FILES)
        return Value({"file": value}, value.origin, value.key) if is_file else value
    if not isinstance(value.data, str) or section not in ("model", *SHORTHANDS):
        return value
    key = SHORTHANDS.get(section) or ("adapter" if value.data in adapters else "checkpoint")
    return Value({key: value}, value.origin, value.key)


def _expand_seeds(value: Value) -> Value:
    """Write `10` and `0..9` out; what is no such range, or too long a one, is left for the schema to refuse."""
    data = value.data
    first, last = 0, -1
    if type(data) is int:
        last = data - 1
    elif isinstance(data, str) and (found := _RANGE.fullmatch(data.strip())):
        first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < MAX_SEEDS:
        return value
    return replace(value, data=[Value(seed, value.origin) for seed in range(first, last + 1)], plain=False)


def _expand_steps(steps: Value) -> Value:
    if not isinstance(steps.data, list):
        return steps
    written = [Value({"step": one}, one.origin, one.key) if isinstance(one.data, str) else one for one in steps.data]
    return replace(steps, data=written)


def _expand_matrix(matrix: Value, adapters: Sequence[str]) -> Value:
    if not matrix.is_mapping:
        return matrix
    axes = dict(matrix.data)
    for axis, values in matrix.data.items():
        if isinstance(values.data, list):
            # A number would be one seed as likely as a count of them.
            counts = axis == "seeds" and any(type(value.data) is int for value in values.data)
            written = values.data if counts else [_expand_section(axis, value, adapters) for value in values.data]
            axes[axis] = replace(values, data=written)
    return replace(matrix, data=axes)


def fill(root: Value, environ: Mapping[str, str]) -> Value:
    """Replace `${VAR}`, `${VAR:-default}` and `${VAR:?why}` in the texts of a document; `$${` is a plain `${`.

    A plain (unquoted) scalar takes the type of what it becomes, so that `steps: ${STEPS:-20}` is a number. A value
    made from a secret keeps its text as `source`, which is what may be stored. What cannot be replaced becomes a
    value that is `wrong`, which matters only if nothing is laid over it.
    """
    return root.map_leaves(lambda value, _path: _fill_text(value, environ))


def _fill_text(value: Value, environ: Mapping[str, str]) -> Value:
    written = value.data
    if not isinstance(written, str) or "${" not in written:
        return value
    pieces, end, secret = [], 0, False
    for use in _VARIABLE.finditer(written):
        text, wrong = _look_up(use, environ)
        if wrong:
            return replace(value, data=None, wrong=wrong)
        pieces += [written[end : use.start()], text]
        end = use.end()
        secret = secret or (use[1] is not None and looks_secret(use[1]) and bool(environ.get(use[1])))
    text = "".join([*pieces, written[end:]])
    return replace(value, data=yaml.retype(text) if value.plain else text, source=written if secret else None)


def _look_up(use: re.Match[str], environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the text for one use of a variable, and what is wrong with it or ""."""
    if use[0] == "$${":
        return "${", ""
    name, form, argument = use[1], use[2], use[3]
    if name is None:
        remedy = "Write ${NAME}, ${NAME:-default} or ${NAME:?why}, or `$${` for a plain `${`"
        return "", f"`${{` starts a variable that does not end. {remedy}."
    text = environ.get(name)
    wrong = ""
    if form == "-":
        text = text or argument
    elif form == "?" and not text:
        wrong = f"the environment variable {name} is not set: {argument or 'this job needs it'}."
    elif text is None:
        wrong = f"the environment variable {name} is not set. Set it, or give a default: ${{{name}:-...}}."
    if text and any("\ud800" <= char <= "\udfff" for char in text):
        wrong = f"the environment variable {name} is not UTF-8."
    return text or "", wrong


def escape(text: str) -> str:
    """Write a text so that reading it as a job file gives the text again."""
    return text.replace("${", "$${")


def escape_all(value: Any) -> Any:
    """Write every text of plain data as `escape` does."""
    if isinstance(value, Mapping):
        return {name: escape_all(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [escape_all(each) for each in value]
    return escape(value) if isinstance(value, str) else value


def looks_secret(name: str) -> bool:
    """Return True for the name of a variable that holds a secret: HF_TOKEN, but not MAX_TOKENS."""
    return _SECRET.search(name) is not None


def hidden(text: str, environ: Mapping[str, str]) -> str:
    """Return a text with the values of secret variables replaced by their names."""
    found = {value: name for name, value in environ.items() if looks_secret(name) and len(value) >= MIN_SECRET}
    for value in sorted(found, key=len, reverse=True):
        text = text.replace(value, f"${{{found[value]}}}")
    return text
