"""Sample an item with a solver, decode its latents: what a worker asks of a pipeline that is loaded."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from genrun.adapters.adapter import NUMBER_FIELDS, Adapter
from genrun.adapters.caches.contract import Cache
from genrun.adapters.call_options import OptionsError, unknown
from genrun.adapters.damaged import damaged_weights
from genrun.adapters.exchange import Exchange
from genrun.adapters.families import informed, parts_of
from genrun.adapters.noise import seeded
from genrun.adapters.parallelize import ParallelRun, parallelize, put_scheduler
from genrun.adapters.pictures import (
    NOT_AS_ASKED,
    PictureError,
    Pictures,
    check_asked,
    check_finite,
    finite_decoding,
    pictures_of,
)
from genrun.adapters.scheduler import describe
from genrun.adapters.scheduler_rules import mismatch
from genrun.adapters.session import OnRound, RefusedError
from genrun.solvers.contract import NonFiniteError, Solution, Solver

ALIASES = {"num_frames": ("video_length", "frames")}
"""What some pipelines call a field of sampling."""


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


def decodes_denoised(pipe: Any) -> bool:
    """Whether a pipeline decodes not the latents that its last step leads to, but the prediction made in it (LCM)."""
    try:
        source = inspect.getsource(type(pipe).__call__)
    except (OSError, TypeError):
        return False
    return re.search(r"^\s*latents, denoised = self\.scheduler\.step\(", source, re.MULTILINE) is not None


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
        PictureError: the pipeline cannot make what is asked for, or its weights are not finite.
        RefusedError: the solver cannot sample this pipeline, or a feature in use.
        NonFiniteError: NaN or infinity at a step, named.
        ExchangeError: another rank of the item failed.
        CacheError: the cache cannot be used on this pipeline, or with this solver.
    """
    check_request(pipe, adapter, request)
    with scheduler_of(pipe, adapter.resolve(request.sampling)), seeded(request.seed, pipe._execution_device):
        try:
            latents, run = _run_loop(pipe, call_arguments(pipe, adapter, request), solver, exchange, on_round, cache)
        except NonFiniteError as error:
            raise damaged_weights(pipe, str(error)) or error from error
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
    first = requests[0]
    with scheduler_of(pipe, adapter.resolve(first.sampling)), seeded(first.seed, pipe._execution_device):
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
    denoised = decodes_denoised(pipe)

    def leave(latents: Tensor, _: Solution) -> None:
        session = run.scheduler.active
        raise _LeaveLoopError(session.others[0] if denoised else latents)

    ways: dict[str, Any] = {"exchange": exchange, "on_round": on_round, "on_sampled": leave}
    with torch.no_grad(), parallelize(pipe, solver, cache=cache, **ways) as run:
        try:
            pipe(**arguments)
        except _LeaveLoopError as end:
            return end.latents, run
    raise RuntimeError(f"{type(pipe).__name__} ended without sampling: it never called its scheduler")


def decode(pipe: Any, adapter: Adapter, request: Request, latents: Tensor) -> Pictures:
    """The pictures of final latents: the pipeline's own decoding, its loop left out.

    Raises:
        PictureError: values that are not finite, or other pictures than were asked for.
    """
    check_finite(latents, "the final latents")
    denoised = decodes_denoised(pipe)
    loops = denoised or not callable(getattr(pipe, "prepare_latents", None))
    arguments = call_arguments(pipe, adapter, request)
    if loops and not denoised:
        latents = latents.float()  # these pipelines hand pixels to numpy, which has no bfloat16
    scheduler = FinishedScheduler(pipe.scheduler, latents, loops=loops, whole=denoised)
    with put_scheduler(pipe, scheduler), _starting_at(pipe, latents), finite_decoding(pipe), torch.no_grad():
        pictures = pictures_of(pipe(**{**arguments, "output_type": "np"}))
    check_asked(pictures, adapter.resolve(request.sampling))
    return pictures


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


def check_request(pipe: Any, adapter: Adapter, request: Request) -> None:
    """Check, before anything is sampled, that a pipeline can make what is asked for, and heeds all that is given.

    Raises:
        PictureError: it would round a number, ignore an argument, or make several pictures.
    """
    accepted = inspect.signature(pipe.__call__).parameters
    known = informed(adapter, parts_of(pipe))
    sampling = adapter.resolve(request.sampling)
    given = {**sampling, "negative_prompt": request.negative_prompt}
    for name, message in known.validate(given):
        raise PictureError(NOT_AS_ASKED, f"sampling.{name}: {message}", "Change it in the job, and submit it again.")
    kind = type(pipe).__name__
    for name in (*NUMBER_FIELDS, "negative_prompt"):
        is_default = name in adapter.defaults and given.get(name) == adapter.defaults[name]
        if given.get(name) is not None and not is_default and not _argument(name, accepted):
            raise PictureError(
                NOT_AS_ASKED, f"sampling.{name}: {kind} has no such argument", "Leave it out, and submit the job again."
            )
    for name, value in (sampling.get("options") or {}).items():
        if name.startswith("num_") and name.endswith("_per_prompt") and value not in (None, 1):
            raise PictureError(
                NOT_AS_ASKED,
                f"sampling.options.{name}: {value}: an item is one picture or clip",
                "Leave it out, and use seeds: [0, 1, ...] for more samples of each prompt.",
            )


def kind_made(pipe: Any, adapter: Adapter) -> str | None:
    """Say what a pipeline makes, "video" or "image"; None where nothing tells."""
    known = informed(adapter, parts_of(pipe)).kind
    accepted = inspect.signature(pipe.__call__).parameters
    return known or ("video" if _argument("num_frames", accepted) else None)


def _argument(name: str, accepted: Mapping[str, Any]) -> str | None:
    """What a pipeline's call names a field of sampling, or None where it has none of that meaning."""
    return next((each for each in (name, *ALIASES.get(name, ())) if each in accepted), None)


def call_arguments(pipe: Any, adapter: Adapter, request: Request) -> dict[str, Any]:
    """The pipeline call of a request, by names of the field; arguments that this pipeline does not take are left out.

    `check_request` refuses those that were asked for.
    """
    accepted = inspect.signature(pipe.__call__).parameters
    sampling = adapter.resolve(request.sampling)
    arguments: dict[str, Any] = {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "num_inference_steps": sampling.get("steps"),
        **{_argument(name, accepted) or name: sampling.get(name) for name in NUMBER_FIELDS},
        **adapter.call,
    }
    arguments = {k: v for k, v in arguments.items() if v is not None and k in accepted}
    options = sampling.get("options") or {}
    _refuse_unknown(options, pipe, accepted)
    generator = torch.Generator(pipe._execution_device).manual_seed(request.seed)
    return {**arguments, **options, "generator": generator}


def _refuse_unknown(options: Mapping[str, Any], pipe: Any, accepted: Mapping[str, inspect.Parameter]) -> None:
    """Refuse options that a pipeline does not take, where it could not be told before it was loaded.

    Raises:
        OptionsError: the first of them.
    """
    for name in options:
        if name not in accepted:
            message = unknown(name, type(pipe).__name__, [*accepted])
            raise OptionsError(f"sampling.options.{name}: {message}", "Leave it out of the job, and submit that.")


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
        if any(request.negative_prompt is not None for request in requests):
            arguments["negative_prompt"] = [request.negative_prompt or "" for request in requests]
    elif "batch_size" in inspect.signature(pipe.__call__).parameters:
        arguments["batch_size"] = len(requests)
    else:
        raise ValueError(f"{type(pipe).__name__} takes neither a prompt nor a batch_size: use batches of 1")
    return arguments


class FinishedScheduler:
    """A scheduler with nothing left to do: the loop runs not at all, and the pipeline decodes the latents it was given.

    Args:
        real: the pipeline's scheduler.
        latents: final latents, (1, ...).
        loops: for pipelines that take no latents: run the loop once, and answer with them.
        whole: for pipelines that unpack all that a step returns, and decode the second part.
    """

    order = 1
    init_noise_sigma = 1.0

    def __init__(self, real: Any, latents: Tensor, *, loops: bool, whole: bool = False) -> None:
        self._real, self._latents, self.loops, self._whole = real, latents, loops, whole

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

    @property
    def step(self) -> Callable[..., Any]:
        """The final latents, for everything that the real step returns; with its signature."""

        @wraps(self._real.step)
        def step(model_output: Tensor, *_: Any, return_dict: bool = True, **__: Any) -> Any:
            latents = self._latents.to(model_output.device)
            if return_dict:
                return SimpleNamespace(prev_sample=latents, pred_original_sample=latents)
            return (latents, latents) if self._whole else (latents,)

        return step


@contextmanager
def scheduler_of(pipe: Any, sampling: Mapping[str, Any]) -> Iterator[None]:
    """The pipeline with the scheduler that a sampling section names, if it does: {"kind": class name, **config}.

    Raises:
        RefusedError: it is for models of another kind than the pipeline's own.
    """
    wanted = dict(sampling.get("scheduler") or {})
    if not wanted:
        yield
        return
    import diffusers

    kind = wanted.pop("kind", type(pipe.scheduler).__name__)
    scheduler = getattr(diffusers, kind).from_config(pipe.scheduler.config, **wanted)
    wrong = mismatch(describe(pipe.scheduler), describe(scheduler))
    if wrong is not None:
        raise RefusedError(wrong)
    with put_scheduler(pipe, scheduler):
        yield
