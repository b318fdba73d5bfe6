"""Diffusers schedulers, each configured for the tiny pipelines' two kinds of model."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Literal

from diffusers.schedulers.scheduling_utils import SchedulerMixin

# Untyped on purpose, as in `images`.
df: Any = import_module("diffusers")

DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"} | {
    "prediction_type": "v_prediction",
    "steps_offset": 1,
}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}

Kind = Literal["diffusion", "flow"]

_VARIANTS: Mapping[Kind, Mapping[str, Callable[[], SchedulerMixin]]] = {
    "diffusion": {
        "ddim": lambda: df.DDIMScheduler(**DIFFUSION, clip_sample=False, set_alpha_to_one=False),
        "ddpm": lambda: df.DDPMScheduler(**DIFFUSION, clip_sample=False),
        "dpm-2m": lambda: df.DPMSolverMultistepScheduler(**DIFFUSION),
        "dpm-2m-sde": lambda: df.DPMSolverMultistepScheduler(**DIFFUSION, algorithm_type="sde-dpmsolver++"),
        "unipc": lambda: df.UniPCMultistepScheduler(**DIFFUSION),
        "euler": lambda: df.EulerDiscreteScheduler(**DIFFUSION),
        "heun": lambda: df.HeunDiscreteScheduler(**DIFFUSION),
        "pndm": lambda: df.PNDMScheduler(**DIFFUSION, skip_prk_steps=True),
        "deis": lambda: df.DEISMultistepScheduler(**DIFFUSION),
        "euler-ancestral": lambda: df.EulerAncestralDiscreteScheduler(**DIFFUSION),
    },
    "flow": {
        "flow-euler": lambda: df.FlowMatchEulerDiscreteScheduler(shift=3.0),
        "flow-heun": lambda: df.FlowMatchHeunDiscreteScheduler(shift=3.0),
        "flow-unipc": lambda: df.UniPCMultistepScheduler(**FLOW),
        "flow-dpm-2m": lambda: df.DPMSolverMultistepScheduler(**FLOW),
    },
}

SCHEDULERS: Mapping[Kind, tuple[str, ...]] = {kind: tuple(variants) for kind, variants in _VARIANTS.items()}
"""Names by kind, to parametrise tests over: "diffusion" for `sd2`, "flow" for `sd3` and `wan21`."""


def build_scheduler(name: str) -> SchedulerMixin:
    """A fresh scheduler of that name.

    Raises:
        KeyError: `name` is not in `SCHEDULERS`.
    """
    return {**_VARIANTS["diffusion"], **_VARIANTS["flow"]}[name]()


def build_scheduler_variants(kind: Kind) -> tuple[tuple[str, SchedulerMixin], ...]:
    """Fresh `(name, scheduler)` pairs of one kind of model: set one as a tiny pipeline's `scheduler`."""
    return tuple((name, build_scheduler(name)) for name in SCHEDULERS[kind])
