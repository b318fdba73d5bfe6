"""Sample an item with a solver, decode its latents: what a worker asks of a pipeline that is loaded."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrun.adapters.adapter import NUMBER_FIELDS, Adapter
from genrun.adapters.caches.contract import Cache
from genrun.adapters.exchange import Exchange
from genrun.adapters.parallelize import ParallelRun, parallelize, put_scheduler
from genrun.adapters.scheduler import set_grid
from genrun.adapters.session import OnRound
from genrun.solvers.contract import Solution, Solver


@dataclass(frozen=True)
class Request:
    """What changes an item's pixels, besides the model and the solver.

    Attributes:
        prompt: the caption.
        seed: of the generator that the pipeline draws its start and its noise from.
        sampling: the resolved sampling section: steps, guidance_scale, height, width, num_frames, scheduler, options.
        negative_prompt: what to steer away from, or None.
    """

    prompt: str
    seed: int
    sampling: Mapping[str, Any]
    negative_prompt: str | None = None


@dataclass(frozen=True)
class Sampled:
    """The end of a trajectory.

    Attributes:
        latents: x_N as the pipeline's loop leaves it, (1, ...), in the pipeline's dtype.
        solution: what sampling cost.
        num_steps: N.
    """

    latents: Tensor
    solution: Solution
    num_steps: int


class _LeaveLoopError(BaseException):
    """Carries the final latents out of a pipeline's loop. No pipeline catches a BaseException."""

    def __init__(self, latents: Tensor) -> None:
        super().__init__()
        self.latents = latents


def _leave(latents: Tensor, _: Solution) -> None:
    raise _LeaveLoopError(latents)


def sample(
    pipe: Any,
    adapter: Adapter,
    request: Request,
    solver: Solver,
    exchange: Exchange | None = None,
    on_round: OnRound | None = None,
    cache: Cache | None = None,
) -> Sampled:
    """Sample one item; every rank of `exchange` calls this alike and returns the same latents.

    Raises:
        RefusedError: the solver cannot sample this pipeline, or a feature in use.
        NonFiniteError: NaN or infinity at a step, named.
        ExchangeError: another rank of the item failed.
        CacheError: the cache cannot be used on this pipeline, or with this solver.
    """
    with scheduler_of(pipe, adapter.resolve(request.sampling)):
        latents, run = _run_loop(pipe, call_arguments(pipe, adapter, request), solver, exchange, on_round, cache)
    return Sampled(latents, run.solution, run.solution.fronts[-1])


def sample_batch(
    pipe: Any,
    adapter: Adapter,
    requests: Sequence[Request],
    solver: Solver,
    exchange: Exchange | None = None,
    on_round: OnRound | None = None,
) -> list[Sampled]:
    """Sample items together in one pipeline call, each under its own control; they share everything but prompt and seed.

    Kernels may choose another order of summation for a batch, so the bits can differ from those of `sample`.

    Raises:
        ValueError: the requests' sampling differs, or the pipeline cannot make several.
        RefusedError, NonFiniteError, ExchangeError: as `sample`.
    """
    with scheduler_of(pipe, adapter.resolve(requests[0].sampling)):
        latents, run = _run_loop(pipe, batch_arguments(pipe, adapter, requests), solver, exchange, on_round)
    rows = zip(latents.split(1), run.solutions, strict=True)
    return [Sampled(row, solution, solution.fronts[-1]) for row, solution in rows]


def _run_loop(
    pipe: Any,
    arguments: Mapping[str, Any],
    solver: Solver,
    exchange: Exchange | None,
    on_round: OnRound | None,
    cache: Cache | None = None,
) -> tuple[Tensor, ParallelRun]:
    """Call the pipeline up to the end of its loop: nothing is decoded."""
    ways: dict[str, Any] = {"exchange": exchange, "on_round": on_round, "on_sampled": _leave}
    with torch.no_grad(), parallelize(pipe, solver, cache=cache, **ways) as run:
        try:
            pipe(**arguments)
        except _LeaveLoopError as end:
            return end.latents, run
    raise RuntimeError(f"{type(pipe).__name__} ended without sampling: it never called its scheduler")


def decode(pipe: Any, adapter: Adapter, request: Request, latents: Tensor) -> np.ndarray:
    """Frames of final latents, uint8 (T, H, W, 3), T = 1 for an image: the pipeline's own decoding, its loop left out."""
    loops = not callable(getattr(pipe, "prepare_latents", None))
    arguments = call_arguments(pipe, adapter, request)
    if loops:
        latents = latents.float()  # these pipelines hand pixels to numpy, which has no bfloat16
    scheduler = FinishedScheduler(pipe.scheduler, latents, loops=loops)
    with put_scheduler(pipe, scheduler), _starting_at(pipe, latents), torch.no_grad():
        return frames_of(pipe(**{**arguments, "output_type": "np"}))


@contextmanager
def _starting_at(pipe: Any, latents: Tensor) -> Iterator[None]:
    """The pipeline with these latents in place of fresh ones, in the form of its loop: some take only another one."""
    plain = type(pipe)
    if not callable(getattr(plain, "prepare_latents", None)):
        yield
        return

    def prepare_latents(self: Any, *args: Any, **kwargs: Any) -> Any:
        fresh = plain.prepare_latents(self, *args, **kwargs)
        first, *rest = fresh if isinstance(fresh, tuple) else (fresh,)
        if first.shape != latents.shape:
            raise ValueError(f"latents of shape {tuple(latents.shape)}, wanted {tuple(first.shape)}")
        given = latents.to(first.device)
        if getattr(pipe.vae, "dtype", None) == torch.float32:
            given = given.float()  # exact; pipelines of one dtype throughout leave them as they are
        return (given, *rest) if isinstance(fresh, tuple) else given

    members = {"prepare_latents": prepare_latents, "__module__": plain.__module__}
    pipe.__class__ = type(plain.__name__, (plain,), members)
    try:
        yield
    finally:
        pipe.__class__ = plain


def call_arguments(pipe: Any, adapter: Adapter, request: Request) -> dict[str, Any]:
    """The pipeline call of a request, by names of the field; arguments that this pipeline does not take are left out."""
    accepted = inspect.signature(pipe.__call__).parameters
    sampling = adapter.resolve(request.sampling)
    arguments: dict[str, Any] = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "num_inference_steps": sampling.get("steps"),
        **{name: sampling.get(name) for name in NUMBER_FIELDS},
        **adapter.call,
    }
    arguments = {k: v for k, v in arguments.items() if v is not None and k in accepted}
    generator = torch.Generator(pipe._execution_device).manual_seed(request.seed)
    return {**arguments, **(sampling.get("options") or {}), "generator": generator}


def batch_arguments(pipe: Any, adapter: Adapter, requests: Sequence[Request]) -> dict[str, Any]:
    """One pipeline call for several requests: lists of prompts and generators. Raises ValueError."""
    first, *rest = requests
    arguments = call_arguments(pipe, adapter, first)
    if not rest:
        return arguments
    if any(request.sampling != first.sampling for request in rest):
        raise ValueError("a batch shares one sampling section")
    device = arguments["generator"].device
    arguments["generator"] = [torch.Generator(device).manual_seed(request.seed) for request in requests]
    if "prompt" in arguments:
        arguments["prompt"] = [request.prompt for request in requests]
        if any(request.negative_prompt for request in requests):
            arguments["negative_prompt"] = [request.negative_prompt or "" for request in requests]
    elif "batch_size" in inspect.signature(pipe.__call__).parameters:
        arguments["batch_size"] = len(requests)
    else:
        raise ValueError(f"{type(pipe).__name__} takes neither a prompt nor a batch_size: use batches of 1")
    return arguments


def frames_of(output: Any) -> np.ndarray:
    """The first item of a pipeline's output in [0, 1], as uint8 (T, H, W, 3)."""
    pictures = np.asarray(output.frames[0] if hasattr(output, "frames") else output.images[:1])
    return (np.clip(pictures, 0, 1) * 255).round().astype(np.uint8)


class FinishedScheduler:
    """A scheduler with nothing left to do: the loop runs not at all, and the pipeline decodes the latents it was given.

    Args:
        real: the pipeline's scheduler.
        latents: final latents, (1, ...).
        loops: for pipelines that take no latents: run the loop once, and answer with them.
    """

    order = 1
    init_noise_sigma = 1.0

    def __init__(self, real: Any, latents: Tensor, *, loops: bool) -> None:
        self._real, self._latents, self.loops = real, latents, loops

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The real scheduler's class."""
        return type(self._real)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    @property
    def timesteps(self) -> Tensor:
        """None, or the last one."""
        return self._real.timesteps[-1:] if self.loops else self._real.timesteps[:0]

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        timesteps: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
    ) -> None:
        """Set the real grid."""
        grid = {"num_inference_steps": num_inference_steps, "device": device, "timesteps": timesteps}
        set_grid(self._real, **grid, sigmas=sigmas, mu=mu)

    def step(
        self, model_output: Tensor, *_: Any, eta: float = 0.0, generator: Any = None, return_dict: bool = True
    ) -> Any:
        """The final latents."""
        latents = self._latents.to(model_output.device)
        return SimpleNamespace(prev_sample=latents) if return_dict else (latents,)


@contextmanager
def scheduler_of(pipe: Any, sampling: Mapping[str, Any]) -> Iterator[None]:
    """The pipeline with the scheduler that a sampling section names, if it does: {"kind": class name, **config}."""
    wanted = dict(sampling.get("scheduler") or {})
    if not wanted:
        yield
        return
    import diffusers

    kind = wanted.pop("kind", type(pipe.scheduler).__name__)
    with put_scheduler(pipe, getattr(diffusers, kind).from_config(pipe.scheduler.config, **wanted)):
        yield
