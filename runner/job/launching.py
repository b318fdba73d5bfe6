"""What is wrong with the section `launch`, beyond the types of its values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from genrun.adapters.parallel.support import no_ring, refusals, uneven, unguided
from genrun.adapters.reading import is_there, unusable
from genrun.runner.job.places import located
from genrun.runner.job.problems import Problem
from genrun.runner.job.schema import LaunchSpec, ModelSpec, ParallelSpec
from genrun.runner.job.sections import section
from genrun.runner.job.tree import Path as TreePath
from genrun.runner.job.tree import Value, bare, dotted
from genrun.runner.job.wording import place
from genrun.runner.parallel.mesh import AXES, product

if TYPE_CHECKING:
    from genrun.runner.job.prompts import Prompt

AUTO = "auto"
OPTION_NAME = re.compile(r"[a-z][a-z0-9-]*")
OURS = {
    "job-name": "genrun names its jobs itself, to find them again.",
    "array": "write launch.array.",
    "output": "logs lie in the run's folder.",
    "error": "logs lie in the run's folder.",
    "wrap": "genrun writes the script itself; launch.template replaces it.",
    "parsable": "genrun sets it.",
    "wait": "write: genrun submit --wait.",
    "test-only": "write: genrun submit -n.",
}
"""Options of sbatch that no job may set, and why."""

OF_STEPS = {
    "dependency": "genrun sets it: each of these jobs waits for the one before.",
    "open-mode": "genrun sets it.",
    "requeue": "genrun sets it: these jobs wait in the queue for the items.",
    "no-requeue": "these jobs have to be put back into the queue while items are missing.",
}
"""The same, of the jobs that follow."""

OF_RANKS = {
    "gpus-per-node": "write launch.gpus.",
    "ntasks": "write launch.processes.",
    "ntasks-per-node": "write launch.processes.",
}
"""Options of sbatch that count ranks, of which genrun has to know."""

IDLE = ("partition", "array", "at_once", "nodes", "gpus", "time", "agent", "options", "template", "then")
"""Keys that only a queue reads."""

ELSEWHERE = {
    "partition": "write launch.partition.",
    "nodes": "write launch.nodes.",
    "time": "write launch.time.",
}
"""Options of sbatch that have a key of their own."""


def mesh_problems(root: Value) -> list[Problem]:
    """Whether there are as many processes as the mesh has ranks; one process (inline) takes any."""
    launch, parallel = section(root, "launch", LaunchSpec), section(root, "parallel", ParallelSpec)
    if launch is None or parallel is None or launch.kind == "inline":
        return []
    count, at = _ranks(launch)
    if count is None:
        return []
    message = _misfit(launch, parallel, count)
    return [Problem(place(root, at), dotted(at), message)] if message else []


def _misfit(launch: LaunchSpec, parallel: ParallelSpec, count: int) -> str:
    """Why so many ranks do not fit a mesh, or ""."""
    sizes = {axis: getattr(parallel, axis) for axis in AXES}
    of_team = {axis: size for axis, size in sizes.items() if axis != "data"}
    team = math.prod(1 if size == AUTO else size for size in of_team.values())
    gpus = launch.nodes * gpus_of(launch)
    if parallel.data != AUTO and parallel.time == AUTO:
        team *= parallel.data
        of_team = {axis: 1 if size == AUTO else size for axis, size in sizes.items()}
    elif parallel.data != AUTO and count != parallel.data * team:
        return f"{count} is not {product(sizes, 'parallel.')} = {parallel.data * team}. Write auto."
    if count % team:
        groups = product(of_team, "parallel.") if team != parallel.time else f"parallel.time = {team}"
        return f"{count} cannot be shared out in groups of {groups}. Write a multiple of {team}."
    if launch.kind == "slurm" and count % launch.nodes:
        return f"{count} ranks cannot be shared out evenly over {launch.nodes} nodes."
    if launch.kind == "slurm" and 0 < gpus < count:
        return f"{count} ranks need a GPU each, and launch.gpus x launch.nodes = {gpus}. Write auto."
    return ""


def support_problems(
    root: Value, pipeline: str | None, denoiser: Mapping[str, Any] | None = None, dtype: str = ""
) -> list[Problem]:
    """Check the axes of the mesh against a pipeline; nothing is said of what is not known.

    Args:
        root: the cell's document.
        pipeline: name of its class.
        denoiser: the config.json of its transformer or UNet.
        dtype: of the model's weights, where the job does not say it.
    """
    parallel = section(root, "parallel", ParallelSpec)
    if parallel is None or pipeline is None:
        return []
    if parallel.backend == "xfuser":
        return []
    wanted = {axis: getattr(parallel, axis) for axis in ("cfg", "ring", "ulysses")}
    wrong = dict(refusals(pipeline, **wanted))
    config, spec = denoiser or {}, section(root, "model", ModelSpec)
    uneven_heads = uneven(str(config.get("_class_name")), config.get("num_attention_heads"), parallel.ulysses)
    of_ring = no_ring(spec.device, _dtype(spec.dtype, dtype)) if spec is not None and parallel.ring > 1 else None
    for axis, message in (("ulysses", uneven_heads), ("ring", of_ring)):
        if message is not None:
            wrong.setdefault(axis, message)
    return [
        Problem(place(root, ("parallel", axis)), f"parallel.{axis}", f"{message}.") for axis, message in wrong.items()
    ]


def _dtype(said: str | Mapping[str, str] | None, usual: str) -> str:
    """The dtype of a transformer's weights."""
    if isinstance(said, Mapping):
        return said.get("transformer") or said.get("default") or usual
    return said or usual


def guidance_problems(
    root: Value, pipeline: str | None, sampling: Mapping[str, Any], prompts: Sequence[Prompt]
) -> list[Problem]:
    """Whether there are two branches of the guidance for `cfg: 2` to share."""
    parallel = section(root, "parallel", ParallelSpec)
    if parallel is None or parallel.cfg == 1:
        return []
    of_job = sampling.get("negative_prompt")
    negatives = [of_job if prompt.negative_prompt is None else prompt.negative_prompt for prompt in prompts]
    message = unguided(pipeline, sampling, has_negative=None not in negatives)
    at = ("parallel", "cfg")
    return [Problem(place(root, at), dotted(at), f"{message}.")] if message else []


def slurm_problems(root: Value) -> list[Problem]:
    """What is wrong with the options for sbatch, and with the template of its script."""
    found = list(_options(root, ("launch", "options"), {**OURS, **ELSEWHERE}))
    for index, _ in _steps(root):
        found += _options(root, ("launch", "then", index, "options"), OURS)
    return found + _template(root)


def clashes(root: Value) -> list[Problem]:
    """What of the section would change nothing, or work against genrun's own; asked of new jobs, not of old runs."""
    ranks = _options(root, ("launch", "options"), OF_RANKS, only_taken=True)
    return [*_idle(root), *_repeated_steps(root), *ranks]


def _idle(root: Value) -> Iterator[Problem]:
    """Keys of a queue in a job that is not queued; a default, as it is stored, says nothing."""
    kind, fields = root.find(("launch", "kind")), LaunchSpec.model_fields
    name = fields["kind"].default if kind is None else kind.data
    # Launchers of other packages may have uses of their own for them.
    if name not in ("inline", "torchrun"):
        return
    for key in IDLE:
        value = root.find(("launch", key))
        default = fields[key].default if fields[key].default_factory is None else {}
        if value is None or value.wrong or bare(value) in (None, default, [], {}):
            continue
        at = ("launch", key)
        remedy = "Write kind: slurm, or leave it out"
        yield Problem(place(root, at, key=True), dotted(at), f"does nothing with kind: {name}. {remedy}.")


def _repeated_steps(root: Value) -> Iterator[Problem]:
    first: dict[str, Value] = {}
    for index, step in _steps(root):
        name = step.get("step")
        if name is None or not isinstance(name.data, str):
            continue
        if first.setdefault(name.data, name) is not name:
            message = f"{name.data} is given twice, first at {first[name.data].origin}. Remove one of them."
            yield Problem(name.origin, dotted(("launch", "then", index)), message)
        yield from _options(root, ("launch", "then", index, "options"), OF_STEPS, only_taken=True)


def _steps(root: Value) -> list[tuple[int, Value]]:
    then = root.find(("launch", "then"))
    return list(enumerate(then.data)) if then is not None and isinstance(then.data, list) else []


def resolved(launch: LaunchSpec, root: Value) -> LaunchSpec:
    """Return the section with its template named by an absolute path."""
    if launch.template is None:
        return launch
    folder = place(root, ("launch", "template")).folder
    return launch.model_copy(update={"template": str(located(launch.template, folder).resolve())})


def gpus_of(launch: LaunchSpec) -> int:
    """GPUs of a node: "h200:8" is 8."""
    return int(str(launch.gpus).rpartition(":")[2])


def _ranks(launch: LaunchSpec) -> tuple[int | None, TreePath]:
    """The ranks that the section asks for, and where."""
    if launch.processes != AUTO:
        return launch.processes, ("launch", "processes")
    if launch.kind == "slurm" and gpus_of(launch):
        return launch.nodes * gpus_of(launch), ("launch", "gpus")
    return None, ()


def _options(root: Value, at: TreePath, taken: Mapping[str, str], *, only_taken: bool = False) -> Iterator[Problem]:
    options = root.find(at)
    for name, value in options.data.items() if options is not None and isinstance(options.data, dict) else ():
        wrong = taken.get(name) or ("" if only_taken else _wrong_option(name, value))
        if wrong:
            path = (*at, name)
            yield Problem(place(root, path, key=True), dotted(path), wrong)


def _wrong_option(name: str, value: Value) -> str:
    """What is wrong with an option for sbatch, or ""."""
    if not OPTION_NAME.fullmatch(name):
        return "no option of sbatch: wanted its long name, such as mail-type."
    if isinstance(value.data, str) and any(ord(char) < 32 or ord(char) == 127 for char in value.data):
        return "a #SBATCH line cannot hold line breaks or other control characters."
    if isinstance(value.data, float) and not math.isfinite(value.data):
        return "wanted a finite number."
    return ""


def _template(root: Value) -> list[Problem]:
    at = ("launch", "template")
    value = root.find(at)
    if value is None or not isinstance(value.data, str) or not value.data or value.source is not None:
        return []
    path = located(value.data, value.origin.folder)
    wrong = unusable(path)
    if not wrong and not is_there(path):
        wrong = f"there is no file {value.data!r} in {str(value.origin.folder)!r}"
    # By name: launchers import jobs, and not the other way round.
    wrong = wrong or import_module("genrun.runner.launch.registry").get("slurm").mistake_in(path)
    return [Problem(value.origin, dotted(at), f"{wrong}.")] if wrong else []
