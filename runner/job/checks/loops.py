"""Checks of a cell's pipeline by what its loop does: what no solver can follow is told before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterator

from genrun.adapters.checkpoint.pipeline_loops import loops_of
from genrun.runner.job.cell import Draft
from genrun.runner.job.errors import JobProblem


def check_loops(cell: Draft) -> Iterator[JobProblem]:
    """Refuse a pipeline whose call samples nothing, or steps its frames apart."""
    loops = None if cell.pipeline is None else loops_of(cell.pipeline)
    if loops is None:
        return
    if not loops.steps:
        message = f"{cell.pipeline} takes no steps of a scheduler, so that there is nothing to sample"
        yield cell.root.problem(("model", "checkpoint"), f"{message}: call the pipeline without genrun.")
    elif loops.apart:
        message = f"{cell.pipeline} {loops.apart}, so that no step of the whole is there to choose"
        yield cell.root.problem(("model", "checkpoint"), f"{message}: call the pipeline without genrun.")
