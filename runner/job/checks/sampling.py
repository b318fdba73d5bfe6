"""Checks of what a pipeline is called with: the model's rules, arguments of the call, negative prompts, and seeds."""

from __future__ import annotations

from collections.abc import Iterator

from genrun.adapters.checkpoint.pipeline_classes import call_parameters
from genrun.adapters.pipeline.call_options import refusals
from genrun.runner.job.cell import Draft
from genrun.runner.job.errors import JobProblem
from genrun.runner.job.tree import repeated

FIELDS = ("guidance_scale", "height", "width", "num_frames", "negative_prompt")
"""Fields of `sampling` that are arguments of the call by the same name, which a pipeline may lack."""

SIDES = ("height", "width")
"""Fields of `sampling` whose impossible values fail the items of their cell, and of no other."""


def check_model_rules(cell: Draft) -> Iterator[JobProblem]:
    """Refuse sizes, frames and the like that the model cannot make."""
    if cell.sampling is None:
        return
    for name, message in cell.adapter.validate(cell.sampling):
        yield cell.root.problem(("sampling", name), f"{message.rstrip('.')}.", fails_items=name in SIDES)


def check_call(cell: Draft) -> Iterator[JobProblem]:
    """Refuse options that are none of the call's or genrun's own, and fields that the call has no argument for."""
    spec = cell.given_sampling
    if spec is None or cell.sampling is None:
        return
    refused = {name for name, _ in cell.adapter.validate(cell.sampling)}
    fields = [name for name in FIELDS if getattr(spec, name) is not None and name not in refused]
    if not spec.options and not fields:
        return
    found = None if cell.pipeline is None else call_parameters(cell.pipeline)
    parameters = None if found is None else [one.name for one in found]
    for name, message in refusals(spec.options, cell.sampling.get("steps"), cell.pipeline, parameters):
        ended = message if message.endswith(("?", ".")) else f"{message}."
        yield cell.root.problem(("sampling", "options", name), ended, key=True)
    for name in fields:
        if parameters is not None and name not in parameters:
            yield cell.root.problem(("sampling", name), f"{cell.pipeline} takes no {name}: leave it out.", key=True)


def check_negative_prompts(cell: Draft) -> Iterator[JobProblem]:
    """Refuse a negative prompt of a prompt's own that the model does not heed; the first of them is told."""
    # The job's own is told by the model's rules.
    if cell.sampling is None or cell.sampling.get("negative_prompt") is not None:
        return
    for prompt in cell.prompts:
        if prompt.negative_prompt is None:
            continue
        given = {**cell.sampling, "negative_prompt": prompt.negative_prompt}
        for name, message in cell.adapter.validate(given):
            if name == "negative_prompt":
                yield JobProblem(prompt.origin, "", f"negative_prompt: {message.rstrip('.')}.")
                return


def check_seeds(cell: Draft) -> Iterator[JobProblem]:
    """Refuse a seed that is given twice."""
    return repeated((at, value) for at, value in cell.root.entries(("seeds",)) if type(value.data) is int)


def check_confidence(cell: Draft) -> Iterator[JobProblem]:
    """Refuse a confidence for a solver that has no tolerance to keep."""
    solver, job = cell.solver, cell.job
    if solver is not None and job is not None and job.solver.confidence and "tolerance" not in solver:
        yield cell.root.problem(("solver", "confidence"), f"{solver['kind']} has no tolerance to keep. Leave it out.")
