"""Compatibility of schedulers with a model, by class and config: those that are sure to ruin the pictures are refused.

Nothing here needs torch or diffusers, so that a job is checked with the same rules before anything is loaded; the grid of
steps that a scheduler lays out is looked at once it has done so.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genrun.adapters.errors import RefusedError

OTHER_GRIDS = (
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_lu_lambdas",
    "use_flow_sigmas",
)
"""Config switches that lay out the grid by noise levels, so that `timestep_spacing` decides no step."""

RUNGE_KUTTA_STEPS = 4
"""Steps at the end of the grid from which PNDM lays out its Runge-Kutta stages."""

MOST = 10**6
"""More steps than any model is trained on: a config file that says more is not believed."""

SAME_TIME = 0.01
"""Relative: bfloat16, in which some pipelines hold a timestep, rounds by up to 1/256."""
TOKENS = ("Amused", "BlockRefinement", "DiscreteDDIM", "EntropyBound", "VQDiffusion")
"""Schedulers of tokens, by the beginnings of their names."""

FLOW, HALF_FLOW, DIFFUSION, EDM, CONTINUOUS = (
    "flow matching",
    "half flow",
    "diffusion",
    "EDM",
    "continuous noise levels",
)


@dataclass(frozen=True)
class Description:
    """A scheduler as its class and config describe it.

    Attributes:
        name: of its class.
        config: every argument of its class, and nothing else: a config file may hold keys of other classes too.
    """

    name: str
    config: Mapping[str, Any]

    @property
    def kind(self) -> Kind:
        """The kind of model that its steps are for."""
        prediction = str(self.config.get("prediction_type") or "epsilon")
        if self.name.startswith("FlowMatch") or self.name == "LTXEulerAncestralRFScheduler":
            return Kind(FLOW, "flow_prediction", inverted=bool(self.config.get("invert_sigmas")))
        flow_sigmas, flow_prediction = bool(self.config.get("use_flow_sigmas")), prediction == "flow_prediction"
        if flow_sigmas or flow_prediction:
            return Kind(FLOW if flow_sigmas and flow_prediction else HALF_FLOW, prediction)
        if self.name.startswith(("EDM", "CosineDPM")):
            return Kind(EDM, prediction)
        if self.config.get("timestep_type") == "continuous":
            return Kind(CONTINUOUS, prediction)
        return Kind(DIFFUSION if "beta_schedule" in self.config else self.name, prediction)


@dataclass(frozen=True)
class Kind:
    """The process that a model was trained for: schedulers of one kind can stand in for one another.

    Attributes:
        process: how noise is mixed in; the scheduler's own name where no other shares it.
        prediction: what the model's output is.
        inverted: noise levels that rise (Mochi), so that the output points the other way.
    """

    process: str
    prediction: str
    inverted: bool = False

    def __str__(self) -> str:
        if self.process == HALF_FLOW:
            return f"{self.prediction} on a grid of another kind (flow needs flow_prediction and use_flow_sigmas both)"
        return f"{self.process}, {self.prediction}{', invert_sigmas' if self.inverted else ''}"


def stepping_problem(scheduler: Description) -> str | None:
    """Say why no solver can follow a scheduler's steps, and what to do; None where one can."""
    if scheduler.name.startswith(TOKENS):
        return f"{scheduler.name} samples tokens, and a solver samples latents: call the pipeline without genrun"
    if scheduler.config.get("scale_factors"):
        return (
            f"{scheduler.name} with scale_factors changes the size of the latents from step to step, which no solver "
            "follows: leave scale_factors out, or call the pipeline without genrun"
        )
    return None


def grid_problem(scheduler: Description, num_steps: int) -> str | None:
    """Say what is wrong with a trailing grid of `num_steps`, and the nearest numbers of steps that work; None if nothing.

    It is laid out by `numpy.arange(trained, 0, -trained / num_steps)`, whose rounding makes one step too many for some N.
    """
    config, trained = scheduler.config, scheduler.config.get("num_train_timesteps", 1000)
    if config.get("timestep_spacing") != "trailing" or any(config.get(switch) for switch in OTHER_GRIDS):
        return None
    if (
        type(trained) is not int
        or not 1 <= num_steps <= trained <= MOST
        or trailing_steps(trained, num_steps) == num_steps
    ):
        return None
    near = [str(n) for n in (_nearest(trained, num_steps, -1), _nearest(trained, num_steps, 1)) if n]
    return (
        f"{scheduler.name} with timestep_spacing: trailing makes {num_steps + 1} steps of {num_steps}, the last at t = -1, "
        f"which ruins the picture. The nearest that work are {' and '.join(near)}"
    )


def count_problem(scheduler: Description, num_steps: int, original_steps: int | None = None) -> str | None:
    """Say which number of steps a scheduler lays out no grid for, and what to write; None where `num_steps` is none such.

    Args:
        scheduler: whose config is looked at.
        num_steps: N.
        original_steps: of the grid that a distilled model was trained on, in place of the config's.
    """
    config = scheduler.config
    if config.get("skip_prk_steps") is False and num_steps < RUNGE_KUTTA_STEPS:
        return (
            f"{scheduler.name} begins with Runge-Kutta steps, which take {RUNGE_KUTTA_STEPS} steps at least, and "
            f"{num_steps} are fewer. Write steps: {RUNGE_KUTTA_STEPS}, or "
            f"scheduler: {{kind: {scheduler.name}, skip_prk_steps: true}}"
        )
    most = original_steps or config.get("original_inference_steps")
    if type(most) is int and 0 < most < num_steps:
        return (
            f"{scheduler.name} takes its steps from the {most} that the model was distilled on (original_inference_steps), "
            f"and {num_steps} are more. Write steps: {most}, or fewer"
        )
    return None


def trained_problem(scheduler: Description, num_steps: int) -> str | None:
    """Say that more steps are wanted than the model was trained on, to take them from; None where they are not."""
    trained = scheduler.config.get("num_train_timesteps")
    if type(trained) is not int or not 0 < trained < num_steps:
        return None
    return (
        f"{scheduler.name} takes its steps from the {trained} that the model was trained on, and {num_steps} are more. "
        f"Write steps: {trained}, or fewer"
    )


def trailing_steps(trained: int, num_steps: int) -> int:
    """Count the steps that a trailing grid really has: the length of `numpy.arange(trained, 0, -trained / num_steps)`."""
    return math.ceil(trained / (trained / num_steps))


def _nearest(trained: int, num_steps: int, direction: int) -> int:
    near = num_steps + direction
    while near and trailing_steps(trained, near) != near:
        near += direction
    return near


def mismatch(own: Description, wanted: Description) -> str | None:
    """Say why a scheduler cannot stand in for the checkpoint's own, and what to write instead; None where it can."""
    if own.name != wanted.name and "Inverse" in wanted.name:
        return f"{wanted.name} turns pictures into noise. Leave `scheduler` out, or name one that samples"
    if own.kind.process == HALF_FLOW or own.kind == wanted.kind:
        return None
    return (
        f"the checkpoint's {own.name} says {own.kind}, and {wanted.name} as given here says {wanted.kind}: the pictures "
        f"would be noise. {_remedy(own, wanted)}"
    )


def _remedy(own: Description, wanted: Description) -> str:
    if own.kind.process == FLOW and not own.kind.inverted:
        if "use_flow_sigmas" in wanted.config:
            return f"Write {_flow(wanted.name, own)}"
        return f"Write {{kind: FlowMatchEulerDiscreteScheduler}}, or {_flow('UniPCMultistepScheduler', own)}"
    if own.kind.process == DIFFUSION and "prediction_type" in wanted.config and "beta_schedule" in wanted.config:
        flow_sigmas = ", use_flow_sigmas: false" if wanted.config.get("use_flow_sigmas") else ""
        continuous = ", timestep_type: discrete" if wanted.config.get("timestep_type") == "continuous" else ""
        written = f"{{kind: {wanted.name}, prediction_type: {own.kind.prediction}{flow_sigmas}{continuous}}}"
        return f"Write {written}; or correct scheduler/scheduler_config.json of the checkpoint where that is wrong"
    return f"Leave `scheduler` out, or write {{kind: {own.name}}}"


def _flow(name: str, own: Description) -> str:
    """Spell a scheduler that does flow matching, in place of the checkpoint's own."""
    shift = own.config.get("flow_shift", own.config.get("shift"))
    shifts = isinstance(shift, int | float) and shift != 1 and not own.config.get("use_dynamic_shifting")
    suffix = f", flow_shift: {shift}" if shifts else ""
    return f"{{kind: {name}, prediction_type: flow_prediction, use_flow_sigmas: true{suffix}}}"


def set_grid(scheduler: Any, *args: Any, **kwargs: Any) -> None:
    """Call a scheduler's `set_timesteps`, and look at what it has made.

    Raises:
        RefusedError: a trailing grid with one step too many, or a step before the first; levels that are no numbers; steps
            that no solver follows.
    """
    scheduler.set_timesteps(*args, **kwargs)
    description, timesteps = describe(scheduler), scheduler.timesteps
    wrong = stepping_problem(description)
    if wrong:
        raise RefusedError(wrong)
    tables: tuple[Any, ...] = (timesteps, getattr(scheduler, "sigmas", None))
    if any(bool(table.isnan().any()) for table in tables if hasattr(table, "isnan")):
        raise RefusedError(
            f"{description.name} lays out levels that are no numbers (NaN) for {len(timesteps)} steps, and so would the "
            f"picture be; take more steps, or leave out {_grid_options(description)}"
        )
    given = inspect.signature(scheduler.set_timesteps).bind(*args, **kwargs).arguments
    steps = given.get("num_inference_steps")
    if description.config.get("timestep_type") == "continuous" or not hasattr(scheduler, "alphas_cumprod"):
        return
    if bool((timesteps < 0).any()):
        wrong = grid_problem(description, steps) if type(steps) is int else None
        raise RefusedError(
            wrong or f"{description.name} was given the timestep {int(timesteps.min())}: there is none below 0"
        )


def check_begin(scheduler: Any, window: range) -> None:
    """Refuse steps the first two of which share a timestep: a scheduler that looks its place up begins at the second.

    Raises:
        RefusedError: naming both.
    """
    timesteps = scheduler.timesteps[window.start : window.stop]
    if len(timesteps) > 1 and timesteps[0] == timesteps[1] and getattr(scheduler, "begin_index", 0) is None:
        raise RefusedError(
            f"{type(scheduler).__name__} has the timestep {float(timesteps[0]):g} for the first two of "
            f"{len(timesteps)} steps and would leave out the first; take fewer steps, or a smaller shift"
        )


def is_another(timestep: Any, first: Any) -> bool:
    """Return whether a timestep given to `step` is a number other than the grid's."""
    given = timestep.item() if hasattr(timestep, "numel") and timestep.numel() == 1 else timestep
    return isinstance(given, int | float) and abs(given - float(first)) > SAME_TIME * max(1.0, abs(given))


def _grid_options(scheduler: Description) -> str:
    """Name the options that a scheduler's levels are laid out by."""
    switches = [name for name in ("shift_terminal", *OTHER_GRIDS[:-1]) if scheduler.config.get(name)]
    return " and ".join(switches) or "its options"


def describe(scheduler: Any) -> Description:
    """Describe a scheduler by its class and config."""
    keys = inspect.signature(type(scheduler).__init__).parameters
    return Description(
        type(scheduler).__name__, {key: scheduler.config[key] for key in keys if key in scheduler.config}
    )
