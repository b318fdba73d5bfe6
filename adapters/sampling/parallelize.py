"""`genrun.parallelize`: a diffusers pipeline under a solver, in a with block."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any

from torch import nn

from genrun.adapters.caches import registry as caches
from genrun.adapters.caches.contract import Cache
from genrun.adapters.caches.manager import CacheManager
from genrun.adapters.checkpoint.diffusers_source import DELEGATES, loops_of_type
from genrun.adapters.errors import CacheError, RefusedError
from genrun.adapters.parallel.exchange import Exchange, ExchangeError, LocalExchange
from genrun.adapters.scheduler.kept import keeps
from genrun.adapters.scheduler.rows import CallProgress, OnRound
from genrun.adapters.scheduler.session import summary
from genrun.adapters.scheduler.time_parallel import OnSampled, TimeParallelScheduler
from genrun.adapters.scheduler.timesteps import uses_time_after_step, with_counting
from genrun.registry import make
from genrun.solvers import registry
from genrun.solvers.contract import Solution, Solver
from genrun.solvers.sequential import Sequential

MARK = "_under_genrun"
"""Class attribute of a pipeline while it is under a solver."""

CALLBACKS = ("callback_on_step_end", "callback")
"""Arguments of a pipeline's call that see its latents after each step."""


@dataclass(frozen=True)
class ParallelRun:
    """A pipeline under a solver: what the last call cost."""

    scheduler: TimeParallelScheduler
    manager: CacheManager

    @property
    def solution(self) -> Solution:
        """Rounds, NFE and fronts of the last call (of its slowest sample). Raises RuntimeError before one has ended."""
        session = self.scheduler.session
        if session is None or not session.done:
            raise RuntimeError("no pipeline call has been sampled to its end: call the pipeline inside the with block")
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
        pipe: any diffusers pipeline with a scheduler; it is not modified, and left as it was. Of one that leaves its steps
            to others, such as a prior and a decoder, each of those is sampled so, and the run is that of the last.
        solver: a name of `genrun.solvers.registry.names()`, or a solver.
        cache: a name of `genrun.adapters.caches.registry.names()`, a name and options as in a job file
            ({"kind": "first_block", "threshold": 0.1}), or a cache.
        exchange: who evaluates the points of a round: this process (the default), or the ranks of a group.
        on_round: called with the Progress after each round.
        on_sampled: called with the final latents before they are decoded.
        options: the solver's options, such as workers and tolerance. workers is the number of ranks of `exchange` unless it
            is given, so 1 in one process.

    Raises:
        TypeError: the solver has no such option.
        RefusedError: the pipeline, or a call of it, carries something from one step to the next that is not its latents; or
            it is under a solver already.
        CacheError: the cache cannot be used on this pipeline, or with this solver.
    """
    if not isinstance(solver, str) and options:
        raise TypeError(f"{', '.join(options)}: options of a solver that is given by name; this one has its own.")
    if parts := called_by(pipe):
        if cache is not None:
            raise CacheError(
                f"{type(pipe).__name__} {DELEGATES}, which may share a model: put the cache on one of them alone"
            )
        told = {"exchange": exchange, "on_round": on_round, "on_sampled": on_sampled}
        with ExitStack() as stack:
            runs = [stack.enter_context(parallelize(part, solver, cache=cache, **told, **options)) for part in parts]
            yield runs[-1]
        return
    exchange = exchange or LocalExchange()
    chosen = _solver(solver, exchange.size, options) if isinstance(solver, str) else solver
    check_pipeline(pipe)
    manager = CacheManager(_cache(cache), pipe, chosen)
    check_state(pipe, chosen, caches=manager.cache is not None)
    real, plain = pipe.scheduler, type(pipe)
    bar = StepsBar(getattr(pipe, "_progress_bar_config", {}), hidden=exchange.rank > 0)

    def after_round(progress: CallProgress) -> None:
        bar.show(progress)
        if on_round is not None:
            on_round(progress)

    scheduler = TimeParallelScheduler(real, chosen, exchange, after_round, on_sampled, manager)
    scheduler.blends_by_time = uses_time_after_step(plain)
    loops = loops_of_type(plain)
    scheduler.looks_ahead = loops is not None and loops.looks_ahead
    pipe.__class__ = _under_solver(pipe, scheduler, exchange, bar)
    with put_scheduler(pipe, scheduler):
        try:
            with manager.attached(lambda: scheduler.current if scheduler.is_called else None):
                yield ParallelRun(scheduler, manager)
        finally:
            pipe.__class__ = plain


def _solver(name: str, ranks: int, options: dict[str, Any]) -> Solver:
    """Make a solver; K is the number of ranks where it is not given."""
    kind = registry.get(name)
    if options.get("workers", "auto") == "auto" and "workers" in {each.name for each in fields(kind)}:
        options = {**options, "workers": ranks}
    return make(kind, name, options)


def _cache(cache: str | Mapping[str, Any] | Cache | None) -> Cache | None:
    if isinstance(cache, str):
        cache = {"kind": cache}
    return caches.make(dict(cache)) if isinstance(cache, Mapping) else cache


@contextmanager
def put_scheduler(pipe: Any, scheduler: Any) -> Iterator[None]:
    """Put in a scheduler in a with block, past `DiffusionPipeline.__setattr__`, which would write it into the config."""
    real = pipe.scheduler
    object.__setattr__(pipe, "scheduler", scheduler)
    try:
        yield
    finally:
        object.__setattr__(pipe, "scheduler", real)


def _under_solver(pipe: Any, scheduler: TimeParallelScheduler, exchange: Exchange, bar: StepsBar) -> type:
    """Subclass a pipeline's class with our bar, and a call that refuses what cannot be and tells other ranks of errors."""
    plain, real = type(pipe), pipe.scheduler
    signature = inspect.signature(plain.__call__)
    counting = with_counting(plain)
    followed: Any = counting.pop("__call__", plain.__call__)

    @wraps(plain.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = signature.bind_partial(self, *args, **kwargs).arguments
        check_call(given, scheduler.solver)
        scheduler.begin_call(self, given.get("generator"))
        try:
            with left_as_found(self):
                return followed(self, *args, **kwargs)
        except ExchangeError:
            raise
        except BaseException:
            if scheduler.session is None or not scheduler.session.done:
                exchange.abort()
            raise
        finally:
            scheduler.end_call()

    def progress_bar(self: Any, iterable: Any = None, total: int | None = None, **_: Any) -> StepsBar:
        return bar(iterable, total)

    def components(self: Any) -> dict[str, Any]:
        """Return what another pipeline is made of: the plain scheduler, too."""
        return {**super(under, self).components, "scheduler": real}

    def as_plain(self: Any, _: Any) -> Any:
        """Copy as the plain pipeline: the solver is this one's, and ends with the with block."""
        return object.__new__, (plain,), {**vars(self), "scheduler": real}

    members = {
        **counting,
        "__call__": call,
        "progress_bar": progress_bar,
        "components": property(components),
        "__reduce_ex__": as_plain,
        "__module__": plain.__module__,
        MARK: True,
    }
    under: Any = type(plain.__name__, (plain,), members)
    return under


@contextmanager
def left_as_found(pipe: Any) -> Iterator[None]:
    """Put back what a call would carry into the next one: attention processors, and what guiders and the like count.

    A pipeline puts back its own processors after its loop, so not where that is left early or fails. A guider that has
    stopped is never begun anew.
    """
    parts = [part for part in getattr(pipe, "components", {}).values() if part is not None]
    # Layer by layer: a model's own `attn_processors` may name them all and hold none (HunyuanDiT's ControlNet).
    layers: list[Any] = [layer for part in parts if isinstance(part, nn.Module) for layer in part.modules()]
    # Asked of its class: a module looks long for an attribute that it does not have.
    processors = [(layer, layer.get_processor()) for layer in layers if hasattr(type(layer), "get_processor")]
    held = [(part, dict(vars(part))) for part in parts if keeps(part)]
    try:
        yield
    finally:
        for layer, before in processors:
            if layer.get_processor() is not before:
                layer.set_processor(before)
        for part, before in held:
            vars(part).clear()
            vars(part).update(before)


def called_by(pipe: Any) -> list[Any]:
    """Return the pipelines that a combined one leaves its steps to, in the order in which it holds them."""
    loops = loops_of_type(type(pipe))
    if loops is None or loops.apart != DELEGATES:
        return []
    return [each for name, each in vars(pipe).items() if name.endswith("_pipe")]


def check_call(arguments: Mapping[str, Any], solver: Solver) -> None:
    """Refuse a callback where steps are not taken in order. Raises RefusedError naming the argument."""
    used = [name for name in CALLBACKS if arguments.get(name) is not None]
    if used and not isinstance(solver, Sequential):
        raise RefusedError(
            f"{used[0]} wants the latents of one step after another, and a solver evaluates several steps at once, some "
            "more than once; leave it out, or use solver sequential"
        )


def check_pipeline(pipe: Any) -> None:
    """Refuse a pipeline that samples nothing, takes no step of the whole of its latents, or is under a solver already.

    Raises:
        RefusedError: it is one of these.
    """
    if getattr(type(pipe), MARK, False):
        raise RefusedError(
            f"{type(pipe).__name__} is under a solver already, of a genrun.parallelize that has not ended; leave that block "
            "first"
        )
    if getattr(pipe, "scheduler", None) is None:
        raise RefusedError(
            f"{type(pipe).__name__} has no scheduler, so that there is nothing to sample; call it without genrun"
        )
    loops = loops_of_type(type(pipe))
    if loops is not None and loops.apart:
        raise RefusedError(
            f"{type(pipe).__name__} {loops.apart}, so that no step of the whole is there to choose; call it without genrun"
        )


def check_state(pipe: Any, solver: Solver, *, caches: bool = False) -> None:
    """Refuse what may carry something from one step to the next unseen, where steps are not taken in order.

    Args:
        pipe: the pipeline.
        solver: what it is to be sampled with.
        caches: whether a cache is to be put on it, which would work on what another one hands out.

    Raises:
        RefusedError: a loop whose source is not there to read; another cache.
    """
    if isinstance(solver, Sequential) and not caches:
        return
    loops = loops_of_type(type(pipe))
    if loops is not None and loops.unread and not isinstance(solver, Sequential):
        raise RefusedError(
            f"the source of {type(pipe).__name__}.{loops.unread} is not there to read, so that what its loop carries from "
            "step to step is not known; define it in a file, or use solver sequential"
        )
    models = {name: each for name, each in getattr(pipe, "components", {}).items() if isinstance(each, nn.Module)}
    cached = next((name for name, model in models.items() if any(map(remembers, model.modules()))), None)
    if cached is not None and caches:
        raise RefusedError(
            f"{cached} has a cache in use already, its own or that of another pipeline under genrun which shares it; "
            "disable that one, or leave cache out"
        )
    if cached is not None:
        raise RefusedError(
            f"{cached} has a cache of its own in use, which computes a step from what another has left, and a solver takes "
            "steps out of order; disable it and use genrun's cache, or use solver sequential"
        )


def remembers(layer: nn.Module) -> bool:
    """Return whether a cache of diffusers, cache-dit or genrun is at work on a layer."""
    hooks = getattr(getattr(layer, "_diffusers_hook", None), "hooks", {})
    stateful = any(getattr(hook, "_is_stateful", False) or getattr(hook, "remembers", False) for hook in hooks.values())
    # cache-dit marks the transformer, and has its own blocks there during a call alone.
    return stateful or bool(vars(layer).get("_is_cached")) or type(layer).__module__.startswith("cache_dit")


class StepsBar:
    """Stands in for `pipe.progress_bar` while a solver samples: same calls, another count.

    Args:
        config: the pipeline's own settings of its bar (`set_progress_bar_config`), which go to tqdm.
        hidden: show nothing, on ranks other than the first.
    """

    def __init__(self, config: Mapping[str, Any], *, hidden: bool = False) -> None:
        self._config = {**config, "disable": True} if hidden else dict(config)
        self._bar: Any = None
        self._front = 0
        self.iterable: Iterable[Any] = ()

    def __call__(self, iterable: Iterable[Any] | None = None, total: int | None = None) -> StepsBar:
        """Answer a pipeline's call before its loop; its total counts model calls and is not shown."""
        self.iterable = () if iterable is None else iterable
        return self

    def __iter__(self) -> Iterator[Any]:
        yield from self.iterable

    def __enter__(self) -> StepsBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """Ignore the loop's own count."""

    def show(self, progress: CallProgress) -> None:
        """Move to the front after a round."""
        if self._config.get("disable"):
            return
        if self._bar is None:
            from tqdm.auto import tqdm

            self._front = 0
            self._bar = tqdm(total=progress.num_steps, unit="step", **self._config)
        self._bar.set_postfix(rounds=progress.rounds, evaluations=progress.nfe, refresh=False)
        self._bar.update(progress.front - self._front)
        self._front = progress.front
        if progress.front == progress.num_steps:
            self.close()

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
