"""The object in `pipe.scheduler` that lets a solver sample an unmodified diffusers pipeline in parallel over its steps.

A pipeline's loop does nothing but `model(latents, t)` and `scheduler.step(...)`. This scheduler hands out the timesteps
one by one and answers `step` with the latents to evaluate next, wherever on the trajectory the solver wants them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from genrun.adapters.caches.keeper import Keeper, Moment
from genrun.adapters.exchange import Exchange, LocalExchange
from genrun.adapters.replay import Generators
from genrun.adapters.session import OnRound, RefusedError, Session
from genrun.solvers.contract import Solution, Solver

OnSampled = Callable[[Tensor, Solution], None]


class TimeParallelScheduler:
    """A diffusers scheduler that samples with a solver.

    It carries what pipelines read off a scheduler, everything else comes from the real one; `isinstance` sees the real
    class too. Put it into `pipe.scheduler` through `genrun.parallelize`, which puts the real one back.

    Args:
        real: the pipeline's own scheduler.
        solver: a solver of `genrun.solvers`.
        exchange: who evaluates the points of a round; one process by default.
        on_round: called after each round with its Progress.
        on_sampled: called with the final latents (B, ...) and their solution, before the pipeline decodes them.
        held: dtype that the pipeline casts its latents to after each step, if it does.
        keeper: of a cache's states.
    """

    order = 1

    def __init__(
        self,
        real: Any,
        solver: Solver,
        exchange: Exchange | None = None,
        on_round: OnRound | None = None,
        on_sampled: OnSampled | None = None,
        held: torch.dtype | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self._held, self._keeper = held, keeper
        self._real, self._solver, self._exchange = real, solver, exchange or LocalExchange()
        self._on_round, self._on_sampled = on_round, on_sampled
        self._evaluations = 0
        self._session: Session | None = None

    @property
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The real scheduler's class, which some pipelines ask for."""
        return type(self._real)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __len__(self) -> int:
        return len(self._real)

    @property
    def session(self) -> Session | None:
        """The current or last pipeline call."""
        return self._session

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        timesteps: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
        **others: Any,
    ) -> None:
        """Set the real scheduler's grid, and get ready to sample on it."""
        grid = {"num_inference_steps": num_inference_steps, "device": device, "timesteps": timesteps}
        set_grid(self._real, **grid, sigmas=sigmas, mu=mu, **others)
        self._session = Session(self._real, self._solver, self._exchange, self._on_round, self._held, self._keeper)
        self._evaluations = 0

    @property
    def timesteps(self) -> CurrentValues:
        """What the loop iterates over: one entry per model call, each the time of the point to evaluate."""
        return CurrentValues(self, self._real.timesteps)

    @property
    def sigmas(self) -> CurrentValues:
        """Noise levels, indexed by the loop's counter like `timesteps`."""
        return CurrentValues(self, self._real.sigmas)

    def scale_model_input(self, sample: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Scale latents as the real scheduler does at the step of the point in work, wherever the last replay left it."""
        if self._session is not None and getattr(self._real, "_step_index", None) is not None:
            self._real._step_index = self._session.index
        return self._real.scale_model_input(sample, *args, **kwargs)

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Any = None,
        *rest: Any,
        eta: float | None = None,
        generator: Generators = None,
        return_dict: bool = True,
        **others: Any,
    ) -> Any:
        """Take a model output, and return the latents that the loop evaluates next (the final ones at the end).

        Raises:
            RefusedError: an argument that ties a step to the loop's order.
            NonFiniteError: NaN or infinity at a step, named.
            ExchangeError: another rank failed.
        """
        given = [name for name, value in others.items() if value is not None]
        if given:
            raise RefusedError(f"step({given[0]}=...) cannot be sampled in parallel in time; use solver sequential")
        old = bool(rest)
        session = self.active
        x: Tensor = rest[1] if old else sample
        arguments = {} if eta is None else {"eta": eta}
        latents = session.answer(model_output, x, generator, arguments)
        self._evaluations += 1
        if session.done and self._on_sampled is not None:
            self._on_sampled(latents, summary(session))
        if old:
            return latents, None
        return SimpleNamespace(prev_sample=latents) if return_dict else (latents,)

    @property
    def active(self) -> Session:
        """The current call's session. Raises RefusedError before `set_timesteps`."""
        if self._session is None:
            raise RefusedError(f"{type(self._real).__name__}: set_timesteps has not been called")
        return self._session

    @property
    def moment(self) -> Moment:
        """The evaluation in work."""
        session, timesteps = self.active, self._real.timesteps
        time = float(timesteps[session.index])
        return Moment(session.index, len(timesteps), time, self._evaluations, probe=session.turn > 0)

    @property
    def evaluations(self) -> int:
        """Model calls answered in the current pipeline call: the loop's counter."""
        return self._evaluations


def set_grid(scheduler: Any, **arguments: Any) -> None:
    """`set_timesteps` with the arguments that are given: not every scheduler takes all that a pipeline may name."""
    scheduler.set_timesteps(**{name: value for name, value in arguments.items() if value is not None})


class CurrentValues:
    """A per-step table of the real scheduler, seen from inside the loop.

    The loop's counter i counts model calls, while the point evaluated may be any step j. Entry i is the table's at j, and
    its neighbours i - 1, i + 1 are those of j.
    """

    def __init__(self, scheduler: TimeParallelScheduler, table: Tensor) -> None:
        self._scheduler, self._table = scheduler, table

    def __len__(self) -> int:
        """The budget of model calls, never reached before the session is done."""
        session = self._scheduler.active
        return session.num_steps * max(session.solver.workers, 1) + 1

    def __iter__(self) -> Iterator[Tensor]:
        session = self._scheduler.active
        while not session.done:
            yield self._table[session.index]

    def __getitem__(self, position: Any) -> Tensor:
        if not isinstance(position, int):
            raise RefusedError(
                "this pipeline slices its timesteps (image-to-image, or denoising from a given step), which cannot be "
                "sampled in parallel in time; use solver sequential"
            )
        session = self._scheduler.active
        step = session.index + position - self._scheduler.evaluations
        return self._table[min(max(step, 0), len(self._table) - 1)]


def summary(session: Session) -> Solution:
    """The solution of a call: its only sample's, or that of the batch's slowest row."""
    return max(session.solutions, key=lambda solution: solution.rounds)
