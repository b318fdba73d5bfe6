"""Checks of a whole document, and of a cell before anything is loaded, in a list.

To add a check, write a function `(cell: Draft) -> Iterable[Problem]` in the file of its topic and name it in `CHECKS`.
A check says nothing of a section that is wrong itself (None): its own problem is told already.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from genrun.runner.job.cell import Draft
from genrun.runner.job.checks.inputs import check_inputs
from genrun.runner.job.checks.launch import (
    check_guidance,
    check_idle_keys,
    check_launcher,
    check_model_axes,
    check_rank_options,
    check_ranks,
    check_sbatch_options,
    check_steps,
    check_template,
)
from genrun.runner.job.checks.model import (
    check_attention,
    check_cache,
    check_call,
    check_components,
    check_confidence,
    check_loops,
    check_model_rules,
    check_negative_prompts,
    check_offload,
    check_pipeline,
    check_quantization,
    check_seeds,
)
from genrun.runner.job.checks.output import (
    check_audit,
    check_clip_keys,
    check_folder,
    check_format,
    check_gates,
    check_metrics,
    check_previews,
    check_sound,
)
from genrun.runner.job.checks.scheduler import check_scheduler
from genrun.runner.job.errors import JobProblem
from genrun.runner.job.matrix import AXES
from genrun.runner.job.prompt_files import wrong_text
from genrun.runner.job.tree import Path, Value, dotted, got, section_path

Check = Callable[[Draft], Iterable[JobProblem]]

CHECKS: Sequence[Check] = (
    Draft.unresolved,
    check_pipeline,
    check_loops,
    check_offload,
    check_quantization,
    check_components,
    check_seeds,
    check_negative_prompts,
    check_model_rules,
    check_call,
    check_inputs,
    check_confidence,
    check_scheduler,
    check_cache,
    check_attention,
    check_ranks,
    check_model_axes,
    check_guidance,
    check_launcher,
    check_sbatch_options,
    check_template,
    check_rank_options,
    check_idle_keys,
    check_steps,
    check_format,
    check_clip_keys,
    check_sound,
    check_previews,
    check_folder,
    check_metrics,
    check_gates,
    check_audit,
)
"""All checks of a new job. Problems are sorted by place, so the order is a reader's."""

LAUNCH_CHECKS: Sequence[Check] = (check_ranks, check_sbatch_options, check_template)
"""Checks of a stored job, which was checked when it was made, but not on today's machine."""

MESH_CHECKS: Sequence[Check] = (check_model_axes, check_cache, check_attention)
"""Checks of a stored job whose mesh is changed: the new one may not suit its model and caches."""


COMMANDS: tuple[Path, ...] = (("notify", "command"), ("nightly", "notify", "command"))
"""Commands whose arguments, but not the program, may be secrets."""

MAX_WHOLE = 2**64
"""Beyond it no library takes a number."""

MAX_KEY = 200
"""Characters of a key: the longest options of pipelines have forty."""

OPEN = (("sampling", "options"), ("sampling", "scheduler"), ("model", "quantization"))
"""Sections with keys of any name, whose values are checked by nobody else."""

WITH_ITEMS = (*AXES, "matrix", "name")
"""Sections that are stored with every item."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def mark_wrong(root: Value) -> Value:
    """Return a document in which values that cannot be meant, wherever they stand, are `wrong`."""
    return root.map_leaves(_mark)


def _mark(value: Value, path: Path) -> Value:
    wrong = "" if value.wrong else _wrong(value, section_path(path))
    return replace(value, data=None, wrong=wrong) if wrong else value


def _wrong(value: Value, path: Path) -> str:
    """Return why a value can stand nowhere, or ""."""
    data = value.data
    if isinstance(data, str):
        wrong = wrong_text(data)
        # A text encoder takes any character.
        is_listed = path[:1] == ("prompts",) and len(path) > 1 and isinstance(path[1], int)
        is_prompt = is_listed and path[2:] in ((), ("prompt",))
        if wrong or is_prompt or path[-1:] == ("negative_prompt",):
            return wrong
        found = _CONTROL.search(data)
        return f"has the control character U+{ord(found[0]):04X}. Remove it." if found else ""
    # Elsewhere the schema knows what is wanted, and says so.
    if isinstance(data, float) and not math.isfinite(data) and path[:2] in OPEN:
        return f"wanted a finite number, got {got(value)}."
    if isinstance(data, int) and abs(data) > MAX_WHOLE:
        return f"wanted a number of reasonable size, got {got(value)}."
    return ""


def check_values(root: Value) -> Iterator[JobProblem]:
    """Name values that are `wrong`, and a job's name that means something else."""
    for path, value in root.leaves():
        if value.wrong:
            yield JobProblem(value.origin, dotted(path), value.wrong)
    if root.text(("name",)) == "latest":
        yield root.problem(("name",), "'latest' always means the newest run. Choose another name.")


def check_keys(value: Value, path: Path = ()) -> Iterator[JobProblem]:
    """Refuse keys that no message, file or column can hold."""
    for key, child in value.children():
        here: Path = (*path, key)
        # Of the document itself every key is known.
        if path and isinstance(key, str) and (len(key) > MAX_KEY or _UNWRITABLE.search(key)):
            why = f"longer than {MAX_KEY} characters" if len(key) > MAX_KEY else "with a control character"
            yield JobProblem(child.key or child.origin, dotted(path), f"has a key {why}. Remove it.")
        yield from check_keys(child, here)


def check_secrets(root: Value) -> Iterator[JobProblem]:
    """Refuse values made from a secret of the environment that would be stored, printed, or handed to a queue."""
    for path, value in root.leaves():
        # A shell or a program alone reads these: they are stored as `${NAME}`, and filled in only there.
        is_setup = path[:2] == ("launch", "setup")
        of_command = next((path[len(at) :] for at in COMMANDS if path[: len(at)] == at), None)
        is_argument = of_command is not None and of_command != (0,)
        if value.source is not None and not is_setup and not is_argument:
            yield JobProblem(value.origin, dotted(path), _refusal(value.source, path))


def _refusal(source: str, path: Path) -> str:
    looks = f"{source} looks like a secret."
    if path[0] in WITH_ITEMS:
        remedy = "Items are stored: use a variable whose name does not end in TOKEN, KEY, SECRET or PASSWORD"
        return f"{looks} {remedy}."
    if path[0] == "launch":
        # Of an option as of any other key: a batch script is a file that others can read.
        return "made from a secret, and batch scripts are stored. Export it in launch.setup."
    return f"{looks} It would be stored with the run: use another variable, or read it in launch.setup."
