"""Sample an item, or a batch of items, with a solver: one call of a loaded pipeline up to the end of its loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genrun.adapters.adapter import Adapter
from genrun.adapters.caches.contract import Cache
from genrun.adapters.checkpoint.diffusers_source import loops_of_type
from genrun.adapters.errors import RefusedError
from genrun.adapters.parallel.exchange import Exchange
from genrun.adapters.pipeline.pictures import Pictures, damaged_weights, pictures_of
from genrun.adapters.sampling.call import (
    SamplingRequest,
    batch_arguments,
    call_arguments,
    check_request,
    decodes_denoised,
)
from genrun.adapters.sampling.parallelize import ParallelRun, parallelize, put_scheduler
from genrun.adapters.scheduler.compatibility import describe, mismatch
from genrun.adapters.scheduler.noise import seeded
from genrun.adapters.scheduler.rows import OnRound
from genrun.adapters.shapes import Latents, OneLatents
from genrun.solvers.contract import NonFiniteError, Solution, Solver


@dataclass(frozen=True)
class Sampled:
    """The end of a trajectory.

    Attributes:
        latents: x_N as the pipeline's loop leaves it, (1, ...), in the pipeline's dtype.
        solution: what sampling cost.
        num_steps: N.
        others: what the loop sampled beside them, such as the sound's latents.
        pictures: of a call with several loops, whose last latents alone say nothing; None where latents are decoded.
    """

    latents: OneLatents
    solution: Solution
    num_steps: int
    others: tuple[Tensor, ...] = ()
    pictures: Pictures | None = None


class _LeaveLoopError(BaseException):
    """Carries the final latents out of a pipeline's loop. No pipeline catches a BaseException."""

    def __init__(self, latents: Tensor) -> None:
        super().__init__()
        self.latents = latents


def sample(
    pipe: Any,
    adapter: Adapter,
    request: SamplingRequest,
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
            arguments = call_arguments(pipe, adapter, request)
            latents, run, pictures = _run_loop(pipe, arguments, solver, exchange, on_round, cache)
        except NonFiniteError as error:
            raise damaged_weights(pipe, str(error)) or error from error
    return Sampled(latents, run.solution, run.solution.fronts[-1], run.scheduler.active.beside, pictures)


def sample_batch(
    pipe: Any,
    adapter: Adapter,
    requests: Sequence[SamplingRequest],
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
        latents, run, pictures = _run_loop(pipe, batch_arguments(pipe, adapter, requests), solver, exchange, on_round)
    if pictures is not None:
        raise ValueError(f"{type(pipe).__name__} samples in several loops: use batches of 1")
    rows = zip(latents.split(1), run.solutions, strict=True)
    return [Sampled(row, solution, solution.fronts[-1]) for row, solution in rows]


def _run_loop(
    pipe: Any,
    arguments: Mapping[str, Any],
    solver: Solver,
    exchange: Exchange | None,
    on_round: OnRound | None,
    cache: Cache | None = None,
) -> tuple[Latents, ParallelRun, Pictures | None]:
    """Call the pipeline up to the end of its loop: nothing is decoded. With several loops, to its own end."""
    denoised, loops = decodes_denoised(type(pipe)), loops_of_type(type(pipe))
    last: list[Tensor] = []

    def leave(latents: Tensor, variables: Mapping[str, Any]) -> None:
        session = run.scheduler.active
        latents = session.others[0] if denoised else latents
        if loops is None or not loops.repeated(variables):
            raise _LeaveLoopError(latents)
        last[:] = [latents]

    ways: dict[str, Any] = {"exchange": exchange, "on_round": on_round, "on_sampled": leave}
    if loops is not None and (loops.several or loops.repeats):
        arguments = {**arguments, "output_type": "np"}
    with torch.no_grad(), parallelize(pipe, solver, cache=cache, **ways) as run:
        try:
            output = pipe(**arguments)
        except _LeaveLoopError as end:
            return end.latents, run, None
        if last:
            return last[0], run, pictures_of(output)
    raise RuntimeError(f"{type(pipe).__name__} ended without sampling: it never called its scheduler")


@contextmanager
def scheduler_of(pipe: Any, sampling: Mapping[str, Any]) -> Iterator[None]:
    """Put in the scheduler that a sampling section names, if it does, inside a with block: {"kind": class, **config}.

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
