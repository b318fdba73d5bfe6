"""The object in `pipe.scheduler` that lets a solver sample an unmodified diffusers pipeline in parallel over its steps.

A pipeline's loop does nothing but `model(latents, t)` and `scheduler.step(...)`. This scheduler hands out the timesteps
one by one and answers `step` with the latents to evaluate next, wherever on the trajectory the solver wants them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

from torch import Tensor

from genrun.adapters.caches.manager import CacheManager, CurrentEvaluation
from genrun.adapters.errors import RefusedError
from genrun.adapters.parallel.exchange import Exchange, LocalExchange
from genrun.adapters.scheduler.compatibility import set_grid
from genrun.adapters.scheduler.joined import (
    CopiedScheduler,
    JoinedScheduler,
    Part,
    Promised,
    Stepped,
    pack,
    step_like,
    tried,
    unpack,
    value_differs,
)
from genrun.adapters.scheduler.kept import CarriedOver, Kept, frame_of
from genrun.adapters.scheduler.noise import Generators, Strays
from genrun.adapters.scheduler.replay import FOLLOWED
from genrun.adapters.scheduler.rows import OnRound
from genrun.adapters.scheduler.session import Session
from genrun.adapters.scheduler.timesteps import TimestepTable, holding, taken
from genrun.solvers.contract import Solver
from genrun.solvers.sequential import Sequential

OnSampled = Callable[[Tensor, Mapping[str, Any]], None]


class TimeParallelScheduler:
    """A diffusers scheduler that samples with a solver.

    What pipelines read off a scheduler else comes from the real one; `isinstance` sees its class too. `genrun.parallelize`
    puts it into `pipe.scheduler`, and the real one back.

    Args:
        real: the pipeline's own scheduler.
        solver: a solver of `genrun.solvers`.
        exchange: who evaluates the points of a round; one process by default.
        on_round: called after each round with its Progress.
        on_sampled: called at the end of a loop, with the final latents (B, ...) as it leaves them, and its variables.
        manager: of a cache's states.

    Attributes:
        blends_by_time: True when the loop uses a step's timestep after it.
        looks_ahead: True when the loop takes each step twice, the first time to take it back.
        generator: what the pipeline was called with: steps draw from it even where the pipeline keeps it to itself.
    """

    def __init__(
        self,
        real: Any,
        solver: Solver,
        exchange: Exchange | None = None,
        on_round: OnRound | None = None,
        on_sampled: OnSampled | None = None,
        manager: CacheManager | None = None,
    ) -> None:
        self._manager = manager
        self._real, self._solver, self._exchange = real, solver, exchange or LocalExchange()
        self._on_round, self._on_sampled = on_round, on_sampled
        self._session: Session | None = None
        self._finished: Session | None = None
        self._copies: list[CopiedScheduler] = []
        self._parts: list[Part] = []
        self._held: list[dict[str, Tensor]] = []
        self._promised: Promised | None = None
        self._pipe: Any = None
        self.blends_by_time = self.looks_ahead = self._looked_ahead = False
        self.generator: Generators = None
        self._stepped: Callable[..., Any] | None = None

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The real scheduler's class, which some pipelines ask for."""
        return type(self._real)

    @property
    def __dict__(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The real scheduler's memory, which some loops copy and put back."""
        return vars(self._real)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self._real, name, value)

    def __getattr__(self, name: str) -> Any:
        if name == "_real":  # asked for by copy and pickle, before there is one
            raise AttributeError(name)
        return getattr(self._real, name)

    def __deepcopy__(self, memo: Any) -> CopiedScheduler:
        return self.copied(copy.deepcopy(self._real, memo))

    def copied(self, real: Any) -> CopiedScheduler:
        """Return a copy whose steps belong to this scheduler's: the state of both is one."""
        self._copies.append(CopiedScheduler(self, real))
        return self._copies[-1]

    def begin_call(self, pipe: Any, generator: Generators) -> None:
        """Forget the copies of an earlier call of the pipeline, and draw from this one's generator."""
        self._pipe, self.generator, self._copies = pipe, generator, []

    def end_call(self) -> None:
        """Leave nothing half done, after an error in the pipeline's loop."""
        self._looked_ahead = False
        self._stop_watching()
        self._pipe = None
        self._end_parts()

    def _stop_watching(self) -> None:
        for watch in () if self._session is None else (self._session.kept, self._session.strays):
            if watch is not None:
                watch.end()

    def _end_parts(self) -> None:
        self._parts, self._held = [], []
        if self._promised is not None:
            self._promised.__exit__(None, None, None)
            self._promised = None

    def __len__(self) -> int:
        return len(self._real)

    @property
    def is_called(self) -> bool:
        """Whether a call of the pipeline is in work; outside one, this is the real scheduler to whoever shares it."""
        return self._pipe is not None

    @property
    def solver(self) -> Solver:
        """The solver that samples."""
        return self._solver

    @property
    def session(self) -> Session | None:
        """The current or last pipeline call: of several loops in one, the last that has ended."""
        if self._session is None or self._session.is_open or self._finished is None:
            return self._session
        return self._finished

    @property
    def set_timesteps(self) -> Callable[..., None]:
        """Set the real scheduler's grid, and get ready to sample on it; its signature is the real one's, as pipelines ask.

        Raises:
            RefusedError: the grid is one that ruins the picture.
        """

        @wraps(self._real.set_timesteps)
        def set_timesteps(*args: Any, **kwargs: Any) -> None:
            set_grid(self._real, *args, **kwargs)
            if self.is_called:
                self._session = self._begin()

        return set_timesteps

    @property
    def timesteps(self) -> Any:
        """The table that the loop iterates over: an entry a model call, each the time of the point to evaluate."""
        return self._table(self._real.timesteps)

    @property
    def sigmas(self) -> Any:
        """Noise levels, indexed by the loop's counter like `timesteps`."""
        return self._table(self._real.sigmas)

    def _begin(self) -> Session:
        self._stop_watching()
        caches = self._manager is not None and self._manager.cache is not None
        unseen = isinstance(self._solver, Sequential) or self._pipe is None
        kept = None if unseen else Kept(self._pipe, caches=caches)
        return Session(self._real, self._solver, self._exchange, self._on_round, self._manager, kept)

    def _entered(self) -> Session:
        """Return the session of a loop that begins: a new one where the last has come to its end on the same grid."""
        if self.active.done:
            self._session = self._begin()
        return self.active

    def _table(self, real: Any) -> Any:
        if self._session is None or not self.is_called or not isinstance(real, Tensor) or real.ndim != 1:
            return real
        return TimestepTable.of(real, lambda: self.active, self._entered, range(len(real)), len(self._real.timesteps))

    @property
    def step(self) -> Callable[..., Any]:
        """Take a model output, and return the latents that the loop evaluates next (the final ones at the end).

        Its signature is the real one's: pipelines look there for what they may pass.

        Raises:
            RefusedError: an argument that ties a step to the loop's order.
            NonFiniteError: NaN or infinity at a step, named.
            ExchangeError: another rank failed.
        """
        # Made once: a loop asks for it in every evaluation, and a signature is slow to read.
        self._stepped = self._stepped or self.step_of(self._real)
        return self._stepped

    def step_of(self, real: Any) -> Callable[..., Any]:
        """Return the step of the real scheduler, or of a copy."""

        def step(given: dict[str, Any], return_dict: bool) -> Any:
            if not self.is_called:
                return real.step(**given, return_dict=return_dict)
            self._looked_ahead = self.looks_ahead and not self._looked_ahead
            if self._looked_ahead:
                return self._look_ahead(given, return_dict)
            if not self._copies:
                return self._step(given, return_dict)
            latents = self._step_part(real, given)
            return Stepped(prev_sample=latents) if return_dict else (latents,)

        return step_like(real, step)

    def _step_part(self, real: Any, given: dict[str, Any]) -> Tensor:
        """Take a part of the model's output; the last one closes the evaluation."""
        schedulers = [self._real, *(each._real for each in self._copies)]
        if real is not schedulers[len(self._parts)]:
            raise RefusedError(
                f"this pipeline steps copies of its {type(self._real).__name__}, each at times of its own, so that there "
                "is no step to choose for a solver; call it without genrun"
            )
        self._parts.append(Part(given["model_output"], given["sample"]))
        self._held.append(self._holding(given["sample"]))
        if len(self._parts) < len(schedulers):
            if self._promised is None:
                self._promised = Promised().__enter__()
            joined = self.active.scheduler
            like = joined.returned[len(self._parts) - 1] if isinstance(joined, JoinedScheduler) else None
            return self._promised.promise(tried(real, given) if like is None else like)
        parts, held, promised = self._parts, self._held, self._promised
        self._end_parts()
        values = self._answer_parts(schedulers, [*parts, *self._kept_after(parts[0])], given)
        if promised is not None:
            promised.keep(values[:-1])
        self._end_loop(self.active, held, values)
        return values[-1]

    def _kept_after(self, part: Part) -> list[Part]:
        kept = self.active.kept
        return [] if kept is None else kept.after(self.active.index, part.sample)

    def _answer_parts(self, schedulers: Sequence[Any], parts: list[Part], given: dict[str, Any]) -> list[Tensor]:
        """Answer for several schedulers at once; what the loop keeps is a part as well, and the next evaluation's."""
        session = self.active
        if not session.is_open:
            carried = len(parts) - len(schedulers)
            session.scheduler = JoinedScheduler([*schedulers, *(CarriedOver() for _ in range(carried))], parts)
        joined: JoinedScheduler = session.scheduler
        joined.check(parts)
        noise = self.generator if given.get("generator") is None else given["generator"]
        outputs, samples = pack([part.output for part in parts]), pack([part.sample for part in parts])
        values = unpack(session.answer(outputs, samples, noise, {}, given.get("timestep")), joined.returned)
        self._after_step(session, given.get("generator"))
        if session.kept is not None:
            session.kept.keep(values[len(schedulers) :])
        return values[: len(schedulers)]

    def _step(self, given: dict[str, Any], return_dict: bool) -> Any:
        session = self.active
        generator = given.get("generator")
        arguments = {} if given.get("eta") is None else {"eta": given["eta"]}
        self._note_by_step(session, {name: value for name, value in given.items() if name not in FOLLOWED})
        self._check_loop(session)
        part = Part(given["model_output"], given["sample"])
        kept = self._kept_after(part)
        if kept:
            if arguments or session.by_step:
                raise RefusedError(
                    "this pipeline keeps something from step to step, and gives its scheduler arguments beside; use solver "
                    "sequential"
                )
            latents, others = self._answer_parts([self._real], [part, *kept], given)[0], ()
        else:
            noise = self.generator if generator is None else generator
            latents = session.answer(part.output, part.sample, noise, arguments, given.get("timestep"))
            others = session.others
        self._after_step(session, generator)
        if session.done:
            self._end_loop(session, [self._holding(part.sample)], [latents])
        if return_dict:
            return Stepped(prev_sample=latents, pred_original_sample=others[0] if others else None)
        return (latents, *others)

    def _look_ahead(self, given: dict[str, Any], return_dict: bool) -> Any:
        """Take the real step of the point in work, which the loop takes back."""
        session = self.active
        if session.replay is not None:
            session.replay.show(session.index)
        return self._real.step(**given, return_dict=return_dict)

    def _holding(self, sample: Tensor) -> dict[str, Tensor]:
        return {} if self._on_sampled is None else holding(frame_of(self._pipe).f_locals, sample)

    def _end_loop(self, session: Session, held: list[dict[str, Tensor]], stepped: list[Tensor]) -> None:
        """Once all is sampled, have the latents taken from the loop's own variables when it has ended."""
        if not (session.done and self._on_sampled):
            return
        on_sampled, pipe = self._on_sampled, self._pipe

        def left() -> None:
            session.on_left = None
            now = frame_of(pipe).f_locals
            finals = [taken(now, before, last) for before, last in zip(held, stepped, strict=True)]
            if session.blends and finals[0] is None:
                raise RefusedError(
                    f"{type(pipe).__name__} changes its latents after each step, the last one too, where a job cannot "
                    "see it; use genrun.parallelize"
                )
            last = stepped[0].to(session.final_dtype)
            found = [step if final is None else final for final, step in zip(finals, [last, *stepped[1:]], strict=True)]
            session.beside = tuple(found[1:])
            on_sampled(found[0], now)

        if session.is_followed:
            session.on_left = left
        else:
            left()

    def _check_loop(self, session: Session) -> None:
        """Check that what the loop does between two steps depends on the point in work alone. Raises RefusedError."""
        drew = session.strays is not None and session.strays.drew()
        if drew and (session.is_stochastic or not isinstance(self._solver, Sequential)):
            raise RefusedError(
                "this pipeline draws noise in its loop beside the scheduler's, so that a step's depends on the steps taken "
                f"before it; {'call it without genrun' if session.is_stochastic else 'use solver sequential'}"
            )
        if session.blends and self.blends_by_time and not isinstance(self._solver, Sequential):
            raise RefusedError(
                "this pipeline changes its latents after a step by that step's timestep, and a solver goes on to another "
                "point; use solver sequential"
            )

    def _after_step(self, session: Session, generator: Generators) -> None:
        """Note what the loop is given to draw from, which the last step leaves as the plain loop's would."""
        if session.done:
            assert session.replay is not None
            session.replay.leave_noise(generator)
            self._finished = session
        session.strays = session.strays or Strays(self.generator, session.rows[0].lane, self._exchange, self._solver)
        session.strays.look(last=session.done)

    def _note_by_step(self, session: Session, given: dict[str, Any]) -> None:
        differing = [name for name, value in given.items() if value_differs(self._real.step, name, value)]
        if not differing and not session.by_step:
            return
        if self._exchange.size > 1:
            raise RefusedError(
                f"step({differing[0]}=...) is another in each step, which is followed on one rank only; leave out "
                "parallel.time"
            )
        if session.turn == 0:  # the others are beside the state that is stepped
            # A table shows the loop what it expects there, and a step is to see what there is.
            plain = {k: v.as_subclass(Tensor) if isinstance(v, TimestepTable) else v for k, v in given.items()}
            session.by_step[session.index] = plain

    @property
    def active(self) -> Session:
        """The current call's session. Raises RefusedError before `set_timesteps`."""
        if self._session is None:
            raise RefusedError(f"{type(self._real).__name__}: set_timesteps has not been called")
        return self._session

    @property
    def current(self) -> CurrentEvaluation:
        """The evaluation in work."""
        now = self.active
        time = float(self._real.timesteps[now.place])
        return CurrentEvaluation(now.index, now.num_steps, time, now.evaluations, probe=now.turn > 0)

    @property
    def evaluations(self) -> int:
        """Model calls answered in the current pipeline call: the loop's counter."""
        return 0 if self._session is None else self._session.evaluations


OWN = (
    {"_manager", "_real", "_solver", "_exchange", "_on_round", "_on_sampled", "_session", "_finished", "_copies"}
    | {"_parts", "_held", "_promised", "_pipe", "_looked_ahead", "_stepped"}
    | {"blends_by_time", "looks_ahead", "generator"}
)
"""Attributes that are not the real scheduler's."""
