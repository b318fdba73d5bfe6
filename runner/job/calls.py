"""What a job says to its pipeline's call, checked against the pipeline's class before anything is loaded."""

from __future__ import annotations

from collections.abc import Collection

from genrun.adapters.checkpoint.pipeline_classes import call_parameters
from genrun.adapters.pipeline.call_options import refusals
from genrun.runner.job.problems import Problem
from genrun.runner.job.schema import SamplingSpec
from genrun.runner.job.tree import Path, Value, dotted
from genrun.runner.job.wording import place

FIELDS = ("guidance_scale", "height", "width", "num_frames", "negative_prompt")


def call_problems(
    root: Value, spec: SamplingSpec, steps: int | None, pipeline: str | None, told: Collection[str]
) -> list[Problem]:
    """Name options that are none of the call's or genrun's own, and fields that the call has no argument for.

    Args:
        root: the cell's document.
        spec: its section `sampling`, as it is given.
        steps: how many there will be.
        pipeline: the class of the pipeline, or None where it is not known.
        told: fields whose problem is known already.
    """
    fields = [name for name in FIELDS if getattr(spec, name) is not None and name not in told]
    if not spec.options and not fields:
        return []
    found = None if pipeline is None else call_parameters(pipeline)
    parameters = None if found is None else [one.name for one in found]
    wrong: list[tuple[Path, str]] = [
        (("sampling", "options", name), message)
        for name, message in refusals(spec.options, steps, pipeline, parameters)
    ]
    if parameters is not None:
        wrong += [
            (("sampling", name), f"{pipeline} takes no {name}: leave it out.")
            for name in fields
            if name not in parameters
        ]
    return [
        Problem(place(root, at, key=True), dotted(at), message if message.endswith(("?", ".")) else f"{message}.")
        for at, message in wrong
    ]
