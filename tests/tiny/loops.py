"""The smallest pipeline: a loop around a scheduler and a model in closed form, for schedulers that no tiny pipeline has."""

from __future__ import annotations

import copy
import inspect
import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

import genrun
from genrun.adapters.parallel.exchange import GroupExchange
from genrun.solvers import registry

# Untyped on purpose, as in `images`.
df: Any = import_module("diffusers")

EXACT: dict[str, dict[str, Any]] = {
    name: {} if name == "sequential" else {"tolerance": 0.0, "workers": 4} for name in registry.names()
}
"""Solvers, with the options that make them exact."""
EACH_WAY = {name: EXACT[name] for name in ("sequential", "paradigms", "ropa", "chords", "srds", "collocation")}
"""One of each way to ask for points and to step between them: what a loop does is theirs to follow, and no other's."""
FEW = {name: EXACT[name] for name in ("sequential", "paradigms", "collocation")}
"""Of those, what pipelines with models are tried with: steps in order, windows of them, and gaps with probes."""
STEPS = 8

V = {"prediction_type": "v_prediction"}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
SDE = {"algorithm_type": "sde-dpmsolver++"}

_MAKERS: Mapping[str, Callable[[], Any]] = {
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
_made = cache(lambda name: _MAKERS[name]())
MATRIX: Mapping[str, Callable[[], Any]] = {name: lambda name=name: copy.deepcopy(_made(name)) for name in _MAKERS}
"""Every scheduler class that steps latents, and the switches of their configs that change how they step.

Copies, since some take their time to make all their training timesteps.
"""

ELSEWHERE = {
    "AmusedScheduler": "tokens",
    "BlockRefinementScheduler": "tokens",
    "CMStochasticIterativeScheduler": "one evaluation, or a list of timesteps",
    "ConsistencyDecoderScheduler": "a decoder's",
    "DDIMInverseScheduler": "from picture to noise",
    "DDPMWuerstchenScheduler": "times of its own",
    "DPMSolverMultistepInverseScheduler": "from picture to noise",
    "DiscreteDDIMScheduler": "tokens",
    "EntropyBoundScheduler": "tokens",
    "FlowMapEulerDiscreteScheduler": "steps to a time that the pipeline names",
    "HeliosDMDScheduler": "several loops",
    "HeliosScheduler": "several loops",
    "KarrasVeScheduler": "deprecated",
    "MiniMaxH3Scheduler": "grids of its pipeline",
    "PiflowScheduler": "a policy",
    "RFD4ProteinaScheduler": "coordinates",
    "RePaintScheduler": "an original picture",
    "SCMScheduler": "one timestep more than steps",
    "ScoreSdeVeScheduler": "a corrector",
    "UnCLIPScheduler": "the previous timestep",
    "VQDiffusionScheduler": "tokens",
}
"""Classes that only pipelines of their own can use, or that have no loop of one step after another."""

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
        grid: further arguments of `set_timesteps`.
    """

    _progress_bar_config: Mapping[str, Any] = {"disable": True}
    between: torch.dtype | None = None
    """To which latents are cast between two steps."""

    def __init__(self, scheduler: Any, *, passes_generator: bool = True, grid: Mapping[str, Any] | None = None) -> None:
        self.scheduler, self.passes_generator, self.grid = scheduler, passes_generator, grid or {}

    def __call__(
        self, num_inference_steps: int = 8, generator: Any = None, batch: int = 1, latents: Tensor | None = None
    ) -> Tensor:
        """Latents after the loop, from given or from drawn ones."""
        self.scheduler.set_timesteps(num_inference_steps, **self.grid)
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
            x = x if self.between is None else x.to(self.between)
        return x

    def model(self, x: Tensor, t: Any) -> Tensor:
        """A bounded function of latents and time that no solver guesses; of twice the channels where variance is learned."""
        time = math.sin(float(t) / 190 + 0.4)
        output = torch.tanh(x.roll(1, dims=-1) * 0.6 - x.flip(dims=(1,)) * 0.3 + time)
        learned = "learned" in str(self.scheduler.config.get("variance_type"))
        return torch.cat([output, output.roll(1, dims=1)], dim=1) if learned else output


class Tiny:
    """A scheduler, and a model in closed form."""

    _progress_bar_config: Mapping[str, Any] = {"disable": True}

    def __init__(self, scheduler: Any) -> None:
        self.scheduler, self.model = scheduler, TinyLoop(scheduler).model


class Loop(Tiny):
    """A loop as pipelines write theirs."""

    shown: Callable[[Any], Any] = staticmethod(lambda timesteps: timesteps)
    blend: Callable[[Tensor, Tensor], Tensor] | None = None

    def __call__(self, steps: int = STEPS, begin: int = 0, end: int | None = None, repeats: int = 1) -> Tensor:
        self.scheduler.set_timesteps(steps)
        x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(3))
        for repeat in range(repeats):
            if repeat:
                self.scheduler.set_timesteps(steps)
            timesteps = self.scheduler.timesteps[begin:end]
            assert len(timesteps) == len([*timesteps]) == len(timesteps.tolist())
            for i, t in enumerate(self.shown(timesteps)):
                assert len(timesteps) == timesteps.shape[0]
                assert timesteps[i] == t
                output = self.model(x.float(), t) * (2.0 if 0.3 < i / len(timesteps) < 0.7 else 1.0)
                x = self.scheduler.step(output, t, x, return_dict=False)[0]
                if self.blend is not None:
                    x = self.blend(x, timesteps[i + 1] if i < len(timesteps) - 1 else torch.tensor(0.0))
        return x


class ThreadExchange(GroupExchange):
    """A group whose ranks are threads of this process: its messages are the real ones."""

    def __init__(self, rank: int, mailbox: list[Tensor], barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, len(mailbox)
        self._on_gpu, self._device, self._mailbox, self._barrier = False, torch.device("cpu"), mailbox, barrier
        self.end()

    def _collect(self, mine: Tensor) -> Tensor:
        self._mailbox[self.rank] = mine
        self._barrier.wait(20)
        everyone = torch.stack(self._mailbox)
        self._barrier.wait(20)
        return everyone


def on_ranks(size: int, make: Callable[[], Any], solver: str) -> list[Tensor]:
    """Sample on several ranks, and return each rank's latents."""
    barrier, mailbox = threading.Barrier(size), [torch.empty(0)] * size

    def rank(number: int) -> Tensor:
        pipe = make()
        try:
            exchange = ThreadExchange(number, mailbox, barrier)
            with genrun.parallelize(pipe, solver, exchange=exchange, **EXACT[solver]):
                return pipe()
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(rank, range(size)))
