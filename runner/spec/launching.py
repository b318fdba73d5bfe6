"""What is wrong with the section `launch`, beyond the types of its values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from genrun.adapters.parallel.support import refusals
from genrun.runner.mesh import AXES, product
from genrun.runner.spec.problems import Problem
from genrun.runner.spec.schema import LaunchSpec, ParallelSpec
from genrun.runner.spec.sections import section
from genrun.runner.spec.tree import Path as TreePath
from genrun.runner.spec.tree import Value, dotted
from genrun.runner.spec.wording import place

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


def support_problems(root: Value, pipeline: str | None) -> list[Problem]:
    """Axes of the mesh that a pipeline, by the name of its class, cannot use; nothing where that is not known."""
    parallel = section(root, "parallel", ParallelSpec)
    if parallel is None or pipeline is None:
        return []
    if parallel.backend == "xfuser":
        return []
    wanted = {axis: getattr(parallel, axis) for axis in ("cfg", "ring", "ulysses")}
    return [
        Problem(place(root, ("parallel", axis)), f"parallel.{axis}", f"{message}.")
        for axis, message in refusals(pipeline, **wanted)
    ]


def slurm_problems(root: Value) -> list[Problem]:
    """What is wrong with the options for sbatch, and with the template of its script."""
    found = list(_options(root, ("launch", "options"), {**OURS, **ELSEWHERE}))
    then = root.find(("launch", "then"))
    for index in range(len(then.data) if then is not None and isinstance(then.data, list) else 0):
        found += _options(root, ("launch", "then", index, "options"), OURS)
    return found + _template(root)


def resolved(launch: LaunchSpec, root: Value) -> LaunchSpec:
    """Return the section with its template named by an absolute path."""
    if launch.template is None:
        return launch
    folder = place(root, ("launch", "template")).folder
    return launch.model_copy(update={"template": str((folder / launch.template).resolve())})


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


def _options(root: Value, at: TreePath, taken: Mapping[str, str]) -> Iterator[Problem]:
    options = root.find(at)
    for name, value in options.data.items() if options is not None and isinstance(options.data, dict) else ():
        wrong = taken.get(name) or _wrong_option(name, value)
        if wrong:
            path = (*at, name)
            yield Problem(place(root, path, key=True), dotted(path), wrong)


def _wrong_option(name: str, value: Value) -> str:
    """What is wrong with an option for sbatch, or ""."""
    if not OPTION_NAME.fullmatch(name):
        return "no option of sbatch: wanted its long name, such as mail-type."
    if value.source is not None:
        return "made from a secret, and batch scripts are stored. Export it in launch.setup."
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
    if (value.origin.folder / value.data).is_file():
        return []
    return [Problem(value.origin, dotted(at), f"there is no file {value.data!r} in {str(value.origin.folder)!r}.")]
