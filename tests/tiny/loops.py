"""The smallest pipeline: a loop around a scheduler and a model in closed form, for schedulers that no tiny pipeline has."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

# Untyped on purpose, as in `images`.
df: Any = import_module("diffusers")

V = {"prediction_type": "v_prediction"}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SDE = {"algorithm_type": "sde-dpmsolver++"}

MATRIX: Mapping[str, Callable[[], Any]] = {
    "cogvideox-ddim": lambda: df.CogVideoXDDIMScheduler(**V, timestep_spacing="trailing"),
    "cogvideox-dpm": lambda: df.CogVideoXDPMScheduler(**V, timestep_spacing="trailing"),
    "ddim": df.DDIMScheduler,
    "ddim-thresholding": lambda: df.DDIMScheduler(thresholding=True, clip_sample=False),
    "ddim-zero-snr": lambda: df.DDIMScheduler(**V, rescale_betas_zero_snr=True, timestep_spacing="trailing"),
    "ddim-parallel": df.DDIMParallelScheduler,
    "ddpm": df.DDPMScheduler,
    "ddpm-large": lambda: df.DDPMScheduler(variance_type="fixed_large", clip_sample=False),
    "ddpm-learned": lambda: df.DDPMScheduler(variance_type="learned_range"),
    "ddpm-parallel": df.DDPMParallelScheduler,
    "deis": df.DEISMultistepScheduler,
    "deis-flow": lambda: df.DEISMultistepScheduler(**FLOW),
    "dpm-2m": df.DPMSolverMultistepScheduler,
    "dpm-3m": lambda: df.DPMSolverMultistepScheduler(solver_order=3),
    "dpm-karras": lambda: df.DPMSolverMultistepScheduler(use_karras_sigmas=True, final_sigmas_type="sigma_min"),
    "dpm-lu": lambda: df.DPMSolverMultistepScheduler(use_lu_lambdas=True),
    "dpm-sde": lambda: df.DPMSolverMultistepScheduler(**SDE),
    "dpm-flow-sde": lambda: df.DPMSolverMultistepScheduler(**FLOW, **SDE),
    "dpm-learned": lambda: df.DPMSolverMultistepScheduler(variance_type="learned_range"),
    "dpm-single": df.DPMSolverSinglestepScheduler,
    "dpm-single-sde": lambda: df.DPMSolverSinglestepScheduler(**SDE, lower_order_final=True, final_sigmas_type="zero"),
    "edm-dpm": df.EDMDPMSolverMultistepScheduler,
    "edm-dpm-sde": lambda: df.EDMDPMSolverMultistepScheduler(**SDE),
    "edm-euler": lambda: df.EDMEulerScheduler(**V),
    "euler": df.EulerDiscreteScheduler,
    "euler-continuous": lambda: df.EulerDiscreteScheduler(
        **V, timestep_type="continuous", use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0
    ),
    "euler-ancestral": df.EulerAncestralDiscreteScheduler,
    "flow-euler": lambda: df.FlowMatchEulerDiscreteScheduler(shift=3.0),
    "flow-euler-inverted": lambda: df.FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
    "flow-euler-stochastic": lambda: df.FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True),
    "flow-heun": lambda: df.FlowMatchHeunDiscreteScheduler(shift=3.0),
    "flow-lcm": lambda: df.FlowMatchLCMScheduler(shift=3.0),
    "heun": df.HeunDiscreteScheduler,
    "ipndm": df.IPNDMScheduler,
    "kdpm2": df.KDPM2DiscreteScheduler,
    "kdpm2-karras": lambda: df.KDPM2DiscreteScheduler(use_karras_sigmas=True),
    "kdpm2-ancestral": df.KDPM2AncestralDiscreteScheduler,
    "lcm": df.LCMScheduler,
    "lms": df.LMSDiscreteScheduler,
    "ltx-ancestral": df.LTXEulerAncestralRFScheduler,
    "pndm": df.PNDMScheduler,
    "pndm-skip": lambda: df.PNDMScheduler(skip_prk_steps=True),
    "sa-solver": df.SASolverScheduler,
    "sa-solver-ode": lambda: df.SASolverScheduler(tau_func=no_noise),
    "tcd": df.TCDScheduler,
    "unipc": df.UniPCMultistepScheduler,
    "unipc-bh1": lambda: df.UniPCMultistepScheduler(
        solver_type="bh1", final_sigmas_type="sigma_min", disable_corrector=[0, 2]
    ),
    "unipc-flow": lambda: df.UniPCMultistepScheduler(**FLOW),
}
"""Every scheduler class that steps latents, and the switches of their configs that change how they step."""

STOCHASTIC = (
    "cogvideox-dpm",
    "ddpm",
    "ddpm-large",
    "ddpm-learned",
    "ddpm-parallel",
    "dpm-sde",
    "dpm-flow-sde",
    "dpm-single-sde",
    "edm-dpm-sde",
    "euler-ancestral",
    "flow-euler-stochastic",
    "flow-lcm",
    "kdpm2-ancestral",
    "lcm",
    "ltx-ancestral",
    "sa-solver",
    "tcd",
)


def no_noise(_: Any) -> int:
    """A tau of 0 at every timestep."""
    return 0


class TinyLoop:
    """A pipeline's loop on latents of (B, 3, 4, 4).

    Args:
        scheduler: a diffusers scheduler.
        passes_generator: whether the loop hands its generator to the scheduler, as SD and unlike Flux.
    """

    def __init__(self, scheduler: Any, *, passes_generator: bool = True) -> None:
        self.scheduler, self.passes_generator = scheduler, passes_generator

    def __call__(
        self, num_inference_steps: int = 8, generator: Any = None, batch: int = 1, latents: Tensor | None = None
    ) -> Tensor:
        """Latents after the loop, from given or from drawn ones."""
        self.scheduler.set_timesteps(num_inference_steps)
        each = generator if isinstance(generator, list) else [generator]
        drawn = [torch.randn(batch // len(each), 3, 4, 4, generator=one) for one in each]
        x = torch.cat(drawn) if latents is None else latents
        x = x * float(getattr(self.scheduler, "init_noise_sigma", 1.0))
        accepts = "generator" in inspect.signature(self.scheduler.step).parameters
        extra = {"generator": generator} if accepts and self.passes_generator else {}
        old: Any = None
        back = None
        for t in self.scheduler.timesteps:
            seen = self.scheduler.scale_model_input(x, t) if hasattr(self.scheduler, "scale_model_input") else x
            output = self.model(seen, t)
            if "old_pred_original_sample" in inspect.signature(self.scheduler.step).parameters:
                x, old = self.scheduler.step(output, old, t, back, x, **extra, return_dict=False)
                back = t
            else:
                x = self.scheduler.step(output, t, x, **extra, return_dict=False)[0]
        return x

    def model(self, x: Tensor, t: Any) -> Tensor:
        """A bounded function of latents and time that no solver guesses; of twice the channels where variance is learned."""
        time = math.sin(float(t) / 190 + 0.4)
        output = torch.tanh(x.roll(1, dims=-1) * 0.6 - x.flip(dims=(1,)) * 0.3 + time)
        learned = "learned" in str(self.scheduler.config.get("variance_type"))
        return torch.cat([output, output.roll(1, dims=1)], dim=1) if learned else output
