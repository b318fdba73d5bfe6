"""Checks of the mesh: as many ranks as it has, and axes that the model's pipeline can use."""

from __future__ import annotations

import math
from collections.abc import Iterator

from genrun.adapters.parallel.support import no_ring, refusals, uneven, unguided
from genrun.runner.job.cell import Draft
from genrun.runner.job.errors import JobProblem
from genrun.runner.job.mesh_axes import AXES, product
from genrun.runner.job.schema import LaunchSpec, ParallelSpec
from genrun.runner.job.tree import Path
from genrun.runner.job.workers import AUTO, gpus_of, ranks_of


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
