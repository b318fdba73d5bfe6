"""Checks of a cell before anything is loaded, in a list.

To add a check, write a function `(cell: Draft) -> Iterable[Problem]` in the file of its topic and name it in `CHECKS`.
A check says nothing of a section that is wrong itself (None): its own problem is told already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from genrun.runner.job.cell import Draft
from genrun.runner.job.checks.cache import check_attention, check_cache
from genrun.runner.job.checks.inputs import check_inputs
from genrun.runner.job.checks.launch import (
    check_idle_keys,
    check_launcher,
    check_rank_options,
    check_sbatch_options,
    check_steps,
    check_template,
)
from genrun.runner.job.checks.loops import check_loops
from genrun.runner.job.checks.model import check_components, check_offload, check_pipeline, check_quantization
from genrun.runner.job.checks.output import check_folder, check_format, check_previews, check_sound
from genrun.runner.job.checks.parallel import check_guidance, check_model_axes, check_ranks
from genrun.runner.job.checks.sampling import (
    check_call,
    check_confidence,
    check_model_rules,
    check_negative_prompts,
    check_seeds,
)
from genrun.runner.job.checks.scheduler import check_scheduler
from genrun.runner.job.checks.score import check_audit, check_gates, check_metrics
from genrun.runner.job.errors import JobProblem

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
