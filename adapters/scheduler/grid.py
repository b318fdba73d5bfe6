"""A scheduler's grid of steps: laid out by the scheduler, and looked at before a solver samples on it."""

from __future__ import annotations

import inspect
from typing import Any

from genrun.adapters.errors import RefusedError
from genrun.adapters.scheduler.compatibility import Description, grid_problem, stepping_problem


def set_grid(scheduler: Any, *args: Any, **kwargs: Any) -> None:
    """Call a scheduler's `set_timesteps`, and look at what it has made.

    Raises:
        RefusedError: a trailing grid with one step too many, or a step before the first; steps that no solver follows.
    """
    scheduler.set_timesteps(*args, **kwargs)
    description, timesteps = describe(scheduler), scheduler.timesteps
    wrong = stepping_problem(description)
    if wrong:
        raise RefusedError(wrong)
    given = inspect.signature(scheduler.set_timesteps).bind(*args, **kwargs).arguments
    steps = given.get("num_inference_steps")
    if description.config.get("timestep_type") == "continuous" or not hasattr(scheduler, "alphas_cumprod"):
        return
    if bool((timesteps < 0).any()):
        wrong = grid_problem(description, steps) if type(steps) is int else None
        raise RefusedError(
            wrong or f"{description.name} was given the timestep {int(timesteps.min())}: there is none below 0"
        )


def describe(scheduler: Any) -> Description:
    """Describe a scheduler by its class and config."""
    keys = inspect.signature(type(scheduler).__init__).parameters
    return Description(
        type(scheduler).__name__, {key: scheduler.config[key] for key in keys if key in scheduler.config}
    )
