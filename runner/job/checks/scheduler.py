"""Checks of a cell's scheduler, against what diffusers has, read from its source, and what the checkpoint comes with."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from genrun.adapters.files import read_json
from genrun.adapters.scheduler.compatibility import (
    Description,
    count_problem,
    grid_problem,
    mismatch,
    stepping_problem,
    trained_problem,
)
from genrun.registry import did_you_mean
from genrun.runner.job.cell import Draft, sampling_of
from genrun.runner.job.checkpoint import Checkpoint
from genrun.runner.job.errors import JobProblem
from genrun.runner.job.files import problem_of
from genrun.runner.job.tree import Path as TreePath
from genrun.runner.job.tree import Value, unknown_option

_CLASS = re.compile(r"^class (\w+Scheduler)\(", re.MULTILINE)
_TRAILING = re.compile(r"""== ["']trailing["']""")
_BOUNDED = re.compile(r"num_inference_steps > self\.config\.num_train_timesteps")
_IMPORTED = {
    "torchsde": re.compile(r"^(import torchsde|from \.scheduling_dpmsolver_sde import)", re.MULTILINE),
    "scipy": re.compile(r"^(import|from) scipy", re.MULTILINE),
}
SECTION: TreePath = ("sampling", "scheduler")
STEPS: TreePath = ("sampling", "steps")
CONFIG_FILE = "scheduler/scheduler_config.json"
CONFIG_BYTES = 2**20
"""Largest size of a scheduler's configuration in bytes; the usual one has two kilobytes."""

OWN_GRIDS = ("timesteps", "sigmas")
"""Options of a pipeline's call that are a grid, so that `steps` lays out none."""


@dataclass(frozen=True)
class SchedulerClass:
    """A scheduler class as its source has it.

    Attributes:
        defaults: config key -> default.
        choices: config key -> the values that it may have, where the source says.
        trailing: True when it lays out trailing grids: some have the key and no use for it.
        bounded: True when it raises for more steps than the model was trained on.
        needs: packages that it imports, and that diffusers does not bring.
    """

    defaults: Mapping[str, Any]
    choices: Mapping[str, tuple[Any, ...]]
    trailing: bool
    bounded: bool
    needs: tuple[str, ...]


def scheduler_names() -> tuple[str, ...]:
    """Return every scheduler class of the installed diffusers, sorted; empty when it is not installed."""
    return tuple(sorted(_sources()))


def check_scheduler(cell: Draft) -> Iterator[JobProblem]:
    """Refuse a scheduler with a wrong config, a step too many, or another prediction than the checkpoint's."""
    if cell.sampling is None or cell.checkpoint is None:
        return
    revision = None if cell.model is None else cell.model.revision
    yield from scheduler_problems(cell.root, cell.sampling, cell.checkpoint, revision)
    scheduler = scheduler_of(cell.sampling, cell.checkpoint, revision)
    for prompt in cell.prompts:
        if "steps" in prompt.row and (wrong := steps_problem(scheduler, sampling_of(cell.sampling, prompt))):
            yield problem_of(cell.root, prompt, "steps", f"{wrong}.")


def scheduler_problems(
    root: Value, sampling: Mapping[str, Any], checkpoint: Checkpoint, revision: str | None
) -> Iterator[JobProblem]:
    """Check the scheduler that a cell samples with.

    Args:
        root: the cell's document.
        sampling: with the adapter's defaults.
        checkpoint: a folder, or a hub id whose scheduler is looked for among what has been downloaded.
        revision: of a hub id.
    """
    own = own_scheduler(checkpoint, revision)
    given = sampling.get("scheduler")
    if given is None:
        if own is not None:
            yield from _steps(root, own, "checkpoint")
            yield from _grid(root, own, sampling)
        return
    name, options = given["kind"], {key: value for key, value in given.items() if key != "kind"}
    known = read_class(name)
    if known is None:
        meant = did_you_mean(name, scheduler_names()) or did_you_mean(f"{name}Scheduler", scheduler_names())
        message = f"diffusers has no scheduler {name!r}.{meant}"
        yield root.problem((*SECTION, "kind"), message)
        return
    problems = list(_options(root, name, known, options))
    if problems:
        yield from problems
        return
    wanted = scheduler_of(sampling, checkpoint, revision)
    assert wanted is not None
    wrong = None if own is None else mismatch(own, wanted)
    if wrong is not None:
        at = next((key for key in ("prediction_type", "use_flow_sigmas", "timestep_type") if key in options), "kind")
        yield root.problem((*SECTION, at), f"{wrong}.")
        return
    yield from _steps(root, wanted, "scale_factors" if "scale_factors" in options else "kind")
    yield from _grid(root, wanted, sampling)


def scheduler_of(sampling: Mapping[str, Any], checkpoint: Checkpoint, revision: str | None) -> Description | None:
    """Return the scheduler that a cell samples with, or None where that cannot be told."""
    own, given = own_scheduler(checkpoint, revision), sampling.get("scheduler")
    if given is None:
        return own
    known = read_class(given["kind"])
    if known is None:
        return None
    # As `from_config` makes it: what the checkpoint's file says and both classes know is taken over, defaults are not.
    written = {} if own is None else own.config
    inherited = {key: written[key] for key in _own_config(checkpoint, revision) if key in written}
    inherited = {key: value for key, value in inherited.items() if key in known.defaults}
    options = {key: value for key, value in given.items() if key != "kind"}
    return Description(given["kind"], {**known.defaults, **inherited, **options})


def own_scheduler(checkpoint: Checkpoint, revision: str | None) -> Description | None:
    """Return the scheduler that a checkpoint comes with, or None where that cannot be told without a download."""
    config = _own_config(checkpoint, revision)
    name = str(config.get("_class_name"))
    known = read_class(name)
    if known is None:
        return None
    own = {key: value for key, value in config.items() if key in known.defaults}
    return Description(name, {**known.defaults, **own})


def _own_config(checkpoint: Checkpoint, revision: str | None) -> dict[str, Any]:
    """Return what a checkpoint's file says of its scheduler; nothing where there is none that can be read."""
    folder = checkpoint.local_folder(revision)
    if folder is None:
        return {}
    try:
        config = read_json(folder / CONFIG_FILE, CONFIG_BYTES)
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _steps(root: Value, scheduler: Description, at: str) -> Iterator[JobProblem]:
    wrong = stepping_problem(scheduler)
    if wrong:
        yield root.problem(("model", at) if at == "checkpoint" else (*SECTION, at), f"{wrong}.")


def _grid(root: Value, scheduler: Description, sampling: Mapping[str, Any]) -> Iterator[JobProblem]:
    wrong = steps_problem(scheduler, sampling)
    if wrong:
        yield root.problem(STEPS, f"{wrong}.")


def steps_problem(scheduler: Description | None, sampling: Mapping[str, Any]) -> str | None:
    """Say what is wrong with the number of steps of some sampling, and what to write; None if nothing."""
    steps, options = sampling.get("steps"), sampling.get("options") or {}
    known = None if scheduler is None else read_class(scheduler.name)
    if scheduler is None or known is None or type(steps) is not int:
        return None
    if any(options.get(name) is not None for name in OWN_GRIDS):
        return None
    original = options.get("original_inference_steps")
    return (
        (grid_problem(scheduler, steps) if known.trailing else None)
        or count_problem(scheduler, steps, original if type(original) is int else None)
        or (trained_problem(scheduler, steps) if known.bounded else None)
    )


def _options(root: Value, name: str, known: SchedulerClass, options: Mapping[str, Any]) -> Iterator[JobProblem]:
    # Diffusers itself ignores keys that it does not know.
    needs = [*known.needs, *(["scipy"] if options.get("use_beta_sigmas") else [])]
    for package in sorted({each for each in needs if importlib.util.find_spec(each) is None}):
        message = f"{name} needs {package}, which is not installed: pip install {package}."
        yield root.problem((*SECTION, "kind"), message)
    for key, value in options.items():
        choices = known.choices.get(key)
        if key not in known.defaults:
            yield root.problem((*SECTION, key), unknown_option(key, list(known.defaults)), key=True)
        elif choices and value not in choices:
            message = f"must be one of {', '.join(map(str, choices))}, got {value!r}."
            yield root.problem((*SECTION, key), message)


@cache
def _sources() -> dict[str, Path]:
    """Return scheduler class -> its source file, so that neither diffusers nor torch is imported."""
    found = importlib.util.find_spec("diffusers")
    if found is None or found.origin is None:
        return {}
    folder = Path(found.origin).parent / "schedulers"
    return {
        name: path
        for path in sorted(folder.glob("scheduling_*.py"))
        for name in _CLASS.findall(path.read_text(encoding="utf-8"))
    }


@cache
def read_class(name: str) -> SchedulerClass | None:
    """Read a scheduler class from diffusers' source; None where there is none of that name."""
    path = _sources().get(name)
    if path is None:
        return None
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name).body
    init = next((node for node in body if isinstance(node, ast.FunctionDef) and node.name == "__init__"), None)
    arguments = [] if init is None else init.args.args[1:]
    values = [] if init is None else init.args.defaults
    unset: list[Any] = [None] * (len(arguments) - len(values))
    defaults = {argument.arg: _literal(value) for argument, value in zip(arguments, [*unset, *values], strict=True)}
    choices = {argument.arg: found for argument in arguments if (found := _choices(argument.annotation))}
    needs = [package for package, imported in _IMPORTED.items() if imported.search(text)]
    return SchedulerClass(defaults, choices, bool(_TRAILING.search(text)), bool(_BOUNDED.search(text)), tuple(needs))


def _literal(node: ast.expr | None) -> Any:
    try:
        return None if node is None else ast.literal_eval(node)
    except ValueError:
        return None


def _choices(annotation: ast.expr | None) -> tuple[Any, ...]:
    """Return the values of a `Literal[...]` that is all of an annotation."""
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Name):
        values = _literal(annotation.slice) if annotation.value.id == "Literal" else None
        return values if isinstance(values, tuple) else ()
    return ()
