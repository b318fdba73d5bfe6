"""`genrun.parallelize`: three lines for a diffusers user."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

from genrun.adapters.bar import StepsBar
from genrun.adapters.caches import registry as caches
from genrun.adapters.caches.contract import Cache
from genrun.adapters.caches.keeper import Keeper
from genrun.adapters.exchange import Exchange, ExchangeError, LocalExchange
from genrun.adapters.guards import check_call, check_pipeline, held_dtype
from genrun.adapters.scheduler import OnSampled, TimeParallelScheduler, summary
from genrun.adapters.session import OnRound, Progress
from genrun.solvers import registry
from genrun.solvers.contract import Solution, Solver


@dataclass(frozen=True)
class ParallelRun:
    """A pipeline under a solver: what the last call cost."""

    scheduler: TimeParallelScheduler
    keeper: Keeper

    @property
    def solution(self) -> Solution:
        """Rounds, NFE and fronts of the last call (of its slowest sample). Raises RuntimeError before one has ended."""
        session = self.scheduler.session
        if session is None or not session.done:
            raise RuntimeError("no pipeline call has been sampled yet: call the pipeline inside the with block")
        return summary(session)

    @property
    def solutions(self) -> list[Solution]:
        """The same for every sample of the batch."""
        return [] if self.scheduler.session is None else self.scheduler.session.solutions


@contextmanager
def parallelize(
    pipe: Any,
    solver: str | Solver = "collocation",
    *,
    cache: str | Mapping[str, Any] | Cache | None = None,
    exchange: Exchange | None = None,
    on_round: OnRound | None = None,
    on_sampled: OnSampled | None = None,
    **options: Any,
) -> Iterator[ParallelRun]:
    """Sample every call of a diffusers pipeline with a solver, inside a with block.

        with genrun.parallelize(pipe, solver="ropa", workers=8) as run:
            images = pipe(prompt).images
        print(run.solution.rounds)

    Args:
        pipe: any diffusers pipeline with a scheduler; it is not modified, and left as it was.
        solver: a name of `genrun.solvers.registry.names()`, or a solver.
        cache: a name of `genrun.adapters.caches.registry.names()`, a name and options as in a job file
            ({"kind": "first_block", "threshold": 0.1}), or a cache.
        exchange: who evaluates the points of a round: this process (the default), or the ranks of a group.
        on_round: called with the Progress after each round.
        on_sampled: called with the final latents before they are decoded.
        options: the solver's options, such as workers and tolerance.

    Raises:
        RefusedError: the pipeline, or a call of it, uses something that goes by the loop's counter.
        CacheError: the cache cannot be used on this pipeline, or with this solver.
    """
    check_pipeline(pipe)
    chosen = registry.get(solver)(**options) if isinstance(solver, str) else solver
    keeper = Keeper(_cache(cache), pipe, chosen)
    exchange = exchange or LocalExchange()
    real, plain = pipe.scheduler, type(pipe)
    bar = StepsBar(getattr(pipe, "_progress_bar_config", {}), hidden=exchange.rank > 0)

    def after_round(progress: Progress) -> None:
        bar.show(progress)
        if on_round is not None:
            on_round(progress)

    scheduler = TimeParallelScheduler(real, chosen, exchange, after_round, on_sampled, held_dtype(pipe), keeper)
    pipe.__class__ = _under_solver(plain, scheduler, exchange, bar)
    with put_scheduler(pipe, scheduler):
        try:
            with keeper.attached(lambda: scheduler.moment):
                yield ParallelRun(scheduler, keeper)
        finally:
            pipe.__class__ = plain


def _cache(cache: str | Mapping[str, Any] | Cache | None) -> Cache | None:
    """The cache that was asked for."""
    if isinstance(cache, str):
        cache = {"kind": cache}
    return caches.make(dict(cache)) if isinstance(cache, Mapping) else cache


@contextmanager
def put_scheduler(pipe: Any, scheduler: Any) -> Iterator[None]:
    """A pipeline with another scheduler, past `DiffusionPipeline.__setattr__`, which would write it into the config."""
    real = pipe.scheduler
    object.__setattr__(pipe, "scheduler", scheduler)
    try:
        yield
    finally:
        object.__setattr__(pipe, "scheduler", real)


def _under_solver(plain: type, scheduler: TimeParallelScheduler, exchange: Exchange, bar: StepsBar) -> type:
    """The pipeline's class with a bar of ours, and a call that refuses what cannot be and tells other ranks of errors."""
    signature = inspect.signature(plain.__call__)

    @wraps(plain.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        check_call(kwargs)
        given = signature.bind_partial(self, *args, **kwargs).arguments
        scheduler.generator = given.get("generator")
        try:
            return plain.__call__(self, *args, **kwargs)
        except ExchangeError:
            raise
        except BaseException:
            if scheduler.session is None or not scheduler.session.done:
                exchange.abort()
            raise

    def progress_bar(self: Any, iterable: Any = None, total: int | None = None) -> StepsBar:
        return bar(iterable, total)

    members = {"__call__": call, "progress_bar": progress_bar, "__module__": plain.__module__}
    return type(plain.__name__, (plain,), members)
