"""Checks of launch and mesh: the launcher, options of sbatch, the template, unused keys; ranks, and axes for the model."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from genrun.adapters.files import is_there, unusable
from genrun.adapters.parallel.support import AXES, no_ring, product, refusals, uneven, unguided
from genrun.runner.job.cell import Draft
from genrun.runner.job.errors import JobProblem
from genrun.runner.job.files import located
from genrun.runner.job.options import AUTO, gpus_of, ranks_of
from genrun.runner.job.schema import LaunchSpec, ParallelSpec
from genrun.runner.job.tree import Path, Value, bare, repeated, unknown

OPTION_NAME = re.compile(r"[a-z][a-z0-9-]*")
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f]")

RESERVED = {
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

WITH_A_KEY = {
    "partition": "write launch.partition.",
    "nodes": "write launch.nodes.",
    "time": "write launch.time.",
}
"""Options of sbatch that have a key of their own; the jobs of `then` set them here."""

RESERVED_IN_STEPS = {
    "dependency": "genrun sets it: each of these jobs waits for the one before.",
    "open-mode": "genrun sets it.",
    "requeue": "genrun sets it: these jobs wait in the queue for the items.",
    "no-requeue": "these jobs have to be put back into the queue while items are missing.",
}
"""Options that the jobs of `then` may not set besides."""

RANKS = {
    "gpus-per-node": "write launch.gpus.",
    "ntasks": "write launch.processes.",
    "ntasks-per-node": "write launch.processes.",
}
"""Options of sbatch that count ranks, of which genrun has to know."""

QUEUE_KEYS = ("partition", "array", "at_once", "nodes", "gpus", "time", "agent", "options", "template", "then")
"""Keys that only a queue reads."""

OPTIONS: Path = ("launch", "options")
THEN: Path = ("launch", "then")


def check_launcher(cell: Draft) -> Iterator[JobProblem]:
    """Refuse an unknown launcher."""
    at, known = ("launch", "kind"), cell.registries.launchers.names()
    kind = cell.root.find(at)
    if kind is not None and isinstance(kind.data, str) and kind.data not in known:
        yield cell.root.problem(at, unknown(kind.data, known, "launcher"))


def check_sbatch_options(cell: Draft) -> Iterator[JobProblem]:
    """Refuse names that are no options of sbatch, or genrun's to set, and values that no #SBATCH line can hold."""
    for at, taken in [(OPTIONS, {**RESERVED, **WITH_A_KEY}), *((at, RESERVED) for at in _step_options(cell.root))]:
        for name, value in _mapping(cell.root, at).items():
            wrong = taken.get(name) or _wrong_option(name, value)
            if wrong:
                yield cell.root.problem((*at, name), wrong, key=True)


def _wrong_option(name: str, value: Value) -> str:
    """Return what is wrong with an option for sbatch, or ""."""
    if not OPTION_NAME.fullmatch(name):
        return "no option of sbatch: wanted its long name, such as mail-type."
    if isinstance(value.data, str) and _UNWRITABLE.search(value.data):
        return "a #SBATCH line cannot hold line breaks or other control characters."
    if isinstance(value.data, float) and not math.isfinite(value.data):
        return "wanted a finite number."
    return ""


def check_template(cell: Draft) -> Iterator[JobProblem]:
    """Refuse a template of the batch script that cannot be read, or whose text is wrong."""
    at = ("launch", "template")
    value = cell.root.find(at)
    if value is None or not isinstance(value.data, str) or not value.data or value.source is not None:
        return
    path = located(value.data, value.origin.folder)
    wrong = unusable(path)
    if not wrong and not is_there(path):
        wrong = f"there is no file {value.data!r} in {str(value.origin.folder)!r}"
    wrong = wrong or cell.registries.template_mistake(path)
    if wrong:
        yield cell.root.problem(at, f"{wrong}.")


def check_rank_options(cell: Draft) -> Iterator[JobProblem]:
    """Refuse options of sbatch that count ranks."""
    return _taken(cell.root, OPTIONS, RANKS)


def check_steps(cell: Draft) -> Iterator[JobProblem]:
    """Refuse a step that is given twice, and options that its place in the queue depends on."""
    names = [(at, step.get("step")) for at, step in cell.root.entries(THEN)]
    yield from repeated((at, name) for at, name in names if name is not None and isinstance(name.data, str))
    for at in _step_options(cell.root):
        yield from _taken(cell.root, at, RESERVED_IN_STEPS)


def check_idle_keys(cell: Draft) -> Iterator[JobProblem]:
    """Refuse keys of a queue in a job that is not queued; a default, as it is stored or the user's, says nothing."""
    fields = LaunchSpec.model_fields
    kind = cell.root.find(("launch", "kind"))
    name = fields["kind"].default if kind is None else kind.data
    # Launchers of other packages may have uses of their own for them.
    if name not in ("inline", "torchrun"):
        return
    for key in QUEUE_KEYS:
        at = ("launch", key)
        value = cell.root.find(at)
        default = fields[key].default if fields[key].default_factory is None else {}
        if value is None or value.wrong or value.origin.of_user or bare(value) in (None, default, [], {}):
            continue
        message = f"does nothing with kind: {name}. Write kind: slurm, or leave it out."
        yield cell.root.problem(at, message, key=True)


def _step_options(root: Value) -> list[Path]:
    return [(*at, "options") for at, _ in root.entries(THEN)]


def _taken(root: Value, at: Path, taken: Mapping[str, str]) -> Iterator[JobProblem]:
    for name in _mapping(root, at):
        if name in taken:
            yield root.problem((*at, name), taken[name], key=True)


def _mapping(root: Value, at: Path) -> Mapping[str, Value]:
    found = root.find(at)
    return found.data if found is not None and isinstance(found.data, dict) else {}


def check_ranks(cell: Draft) -> Iterator[JobProblem]:
    """Refuse more or fewer processes than the mesh has ranks; one process (inline) takes any."""
    launch, parallel = cell.launch, cell.parallel
    if launch is None or parallel is None or launch.kind == "inline":
        return
    count, at = _ranks(launch)
    message = "" if count is None else _misfit(launch, parallel, count)
    if message:
        yield cell.root.problem(at, message)


def _ranks(launch: LaunchSpec) -> tuple[int | None, Path]:
    """Return the ranks that the section asks for, and the key that says so."""
    return ranks_of(launch), ("launch", "processes" if launch.processes != AUTO else "gpus")


def _misfit(launch: LaunchSpec, parallel: ParallelSpec, count: int) -> str:
    """Return why so many ranks do not fit a mesh, or ""."""
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


def check_model_axes(cell: Draft) -> Iterator[JobProblem]:
    """Refuse axes that share an evaluation in a way that the model's pipeline cannot; an unknown one passes."""
    parallel, model = cell.parallel, cell.model
    if parallel is None or cell.pipeline is None or parallel.backend == "xfuser":
        return
    wrong = dict(refusals(cell.pipeline, cfg=parallel.cfg, ring=parallel.ring, ulysses=parallel.ulysses))
    config = cell.denoiser
    heads = uneven(str(config.get("_class_name")), config.get("num_attention_heads"), parallel.ulysses)
    if heads is not None:
        wrong.setdefault("ulysses", heads)
    if model is not None and parallel.ring > 1:
        usual = str(getattr(cell.adapter, "dtype", ""))
        named = model.dtype.get("transformer") or model.dtype.get("default") if isinstance(model.dtype, dict) else None
        dtype = named if isinstance(model.dtype, dict) else model.dtype
        ring = no_ring(model.device, dtype or usual)
        if ring is not None:
            wrong.setdefault("ring", ring)
    for axis, message in wrong.items():
        yield cell.root.problem(("parallel", axis), f"{message}.")


def check_guidance(cell: Draft) -> Iterator[JobProblem]:
    """Refuse `cfg: 2` where guidance has no two branches to share."""
    if cell.parallel is None or cell.parallel.cfg == 1:
        return
    sampling = cell.sampling or {}
    of_job = sampling.get("negative_prompt")
    negatives = [of_job if prompt.negative_prompt is None else prompt.negative_prompt for prompt in cell.prompts]
    message = unguided(cell.pipeline, sampling, has_negative=None not in negatives)
    if message:
        yield cell.root.problem(("parallel", "cfg"), f"{message}.")
