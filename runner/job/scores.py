"""Metrics and their options in a job: `score: [psnr, {kind: clip_score, checkpoint: FOLDER}]`."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from genrun.runner.job.options import describe, model_of
from genrun.runner.job.problems import Problem
from genrun.runner.job.registries import Registry
from genrun.runner.job.tree import Path, Value, bare, dotted
from genrun.runner.job.wording import place, problems_of, unknown, unknown_option

SECTION = "score"
FILE_OPTIONS = ("checkpoint", "full_info", "network", "python", "reference", "weights")
"""Options that may be files or folders, relative to the file they are written in."""


def is_file_option(path: Path) -> bool:
    """Whether a value of a document may be a file that an option of a metric names."""
    return len(path) == 3 and path[0] == SECTION and path[2] in FILE_OPTIONS


def score_problems(root: Value, metrics: Registry) -> list[Problem]:
    """Metrics that do not exist, and options that they do not have or take."""
    section = root.get(SECTION)
    problems: list[Problem] = []
    first: dict[str, Value] = {}
    for index, entry in enumerate(section.data if section and isinstance(section.data, list) else []):
        at: Path = (SECTION, index)
        name = entry.get("kind") if entry.is_mapping else entry
        if name is None or not isinstance(name.data, str):
            continue
        if first.setdefault(name.data, name) is not name:
            message = f"{name.data} is given twice, first at {first[name.data].origin}. Remove one of them."
            problems.append(Problem(name.origin, dotted(at), message))
        if name.data not in metrics.names():
            where = (*at, "kind") if entry.is_mapping else at
            problems.append(Problem(name.origin, dotted(where), unknown(name, metrics.names(), "metric")))
        elif entry.is_mapping:
            problems += _option_problems(root, at, entry, getattr(metrics.get(name.data), "options", None))
    return problems


def _option_problems(root: Value, at: Path, entry: Value, options: Any) -> list[Problem]:
    known = [] if options is None else [option.name for option in describe(type(options))]
    given = {name: value for name, value in entry.data.items() if name != "kind"}
    problems = [
        Problem(place(root, (*at, name), key=True), dotted((*at, name)), unknown_option(name, known))
        for name in given
        if name not in known
    ]
    values = {name: bare(value) for name, value in given.items() if name in known and value.wrong is None}
    if options is None or not values:
        return problems
    try:
        model = model_of(type(options)).model_validate_json(json.dumps(values), strict=True)
        type(options)(**{name: getattr(model, name) for name in values})
    except ValidationError as error:
        return problems + problems_of(error, root, at)
    except ValueError as error:
        name, _, why = str(error).partition(": ")
        where = (*at, name) if name in known else at
        return [*problems, Problem(place(root, where), dotted(where), f"{(why or name).rstrip('.')}.")]
    return problems
