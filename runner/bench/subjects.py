"""What solvers are measured on: the samples of a model, or of a closed-form problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from genrun.adapters.adapter import Adapter
    from genrun.solvers.contract import Solution, Solver

WARM_UP_STEPS = 2


@dataclass(frozen=True)
class Outcome:
    """One sample under a solver: the final state, float32 on the CPU, and what it cost."""

    x: Tensor
    solution: Solution


class Subject(Protocol):
    """Samples that any solver can be run on."""

    @property
    def name(self) -> str:
        """Short and fit for a file name."""
        ...

    @property
    def title(self) -> str:
        """One line."""
        ...

    @property
    def count(self) -> int:
        """Number of samples."""
        ...

    @property
    def batch(self) -> int:
        """Samples that are run in one call."""
        ...

    @property
    def num_frames(self) -> int | None:
        """Frames asked for, which tell the layout of video latents; None for anything else."""
        ...

    def run(self, solver: Solver, indices: Sequence[int], cache: Mapping[str, Any] | None = None) -> list[Outcome]:
        """Sample the given ones, at most `batch`, in one call; `cache` is a kind and its options."""
        ...

    def warm_up(self) -> None:
        """Do what only the first call does, so that it is not timed."""
        ...

    def close(self) -> None:
        """Let go of the model."""
        ...


@dataclass(frozen=True)
class AnalyticSubject:
    """A closed-form problem of `genrun.solvers.analytic`, one sample per seed."""

    name: str
    num_steps: int
    count: int
    seed: int = 0
    batch: int = 1
    num_frames: None = None

    @property
    def title(self) -> str:
        """What the problem is."""
        return self._world.title

    @cached_property
    def _world(self) -> Any:
        from genrun.solvers.analytic import WORLDS

        return WORLDS[self.name]

    @cached_property
    def _denoise(self) -> Any:
        return self._world.denoiser()

    def run(self, solver: Solver, indices: Sequence[int], cache: Mapping[str, Any] | None = None) -> list[Outcome]:
        """Solve one problem per index; there are no blocks to cache."""
        from genrun.solvers import drive
        from genrun.solvers.analytic import evaluator

        problems = [self._world.problem(self.num_steps, self.seed + index) for index in indices]
        solutions = [drive(solver, problem, evaluator(problem, self._denoise)) for problem in problems]
        return [Outcome(solution.x, solution) for solution in solutions]

    def warm_up(self) -> None:
        """Solve a problem once."""
        from genrun.solvers import registry

        self.run(registry.get("sequential")(), [0])

    def close(self) -> None:
        """Nothing to let go of."""


@dataclass(frozen=True)
class Ask:
    """One sample of a model."""

    prompt: str
    negative_prompt: str | None
    seed: int


@dataclass
class ModelSubject:
    """A diffusers pipeline, loaded when it is first run.

    Attributes:
        name: of the model, fit for a file name.
        title: one line.
        adapter: of the model.
        model: checkpoint, revision, dtype and device, as of a WorkItem.
        sampling: the resolved section.
        asks: the samples.
        batch: samples that one pipeline call makes.
    """

    name: str
    title: str
    adapter: Adapter
    model: Mapping[str, Any]
    sampling: Mapping[str, Any]
    asks: Sequence[Ask]
    batch: int = 1
    _open: ExitStack = field(default_factory=ExitStack)

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.asks)

    @property
    def num_frames(self) -> int | None:
        """Frames asked for."""
        return self.sampling.get("num_frames")

    def run(self, solver: Solver, indices: Sequence[int], cache: Mapping[str, Any] | None = None) -> list[Outcome]:
        """Make samples in one pipeline call, as the plain pipeline would; nothing is decoded."""
        return self._run(solver, indices, self.sampling, cache)

    def warm_up(self) -> None:
        """Load the model, and sample a few steps."""
        from genrun.solvers import registry

        few = {**self.sampling, "steps": WARM_UP_STEPS}
        self._run(registry.get("sequential")(), range(min(self.batch, self.count)), few)

    def close(self) -> None:
        """Free the model's memory."""
        self._open.close()
        self.__dict__.pop("_pipe", None)

    def _run(
        self,
        solver: Solver,
        indices: Sequence[int],
        sampling: Mapping[str, Any],
        cache: Mapping[str, Any] | None = None,
    ) -> list[Outcome]:
        from genrun.adapters.caches import registry
        from genrun.adapters.sampling.call import Request
        from genrun.adapters.sampling.generate import sample, sample_batch

        asks = [self.asks[index] for index in indices]
        requests = [Request(ask.prompt, ask.seed, sampling, ask.negative_prompt) for ask in asks]
        if len(requests) == 1:
            made = registry.make(dict(cache)) if cache else None
            sampled = [sample(self._pipe, self.adapter, requests[0], solver, cache=made)]
        else:
            sampled = sample_batch(self._pipe, self.adapter, requests, solver)
        return [Outcome(each.latents.detach().float().cpu(), each.solution) for each in sampled]

    @cached_property
    def _pipe(self) -> Any:
        from genrun.adapters.pipeline.load_options import LoadOptions
        from genrun.adapters.pipeline.loading import load
        from genrun.adapters.pipeline.prompt_cache import encode_once
        from genrun.runner.worker.device import choose_device

        quieten()
        device = choose_device(self.model["device"])
        checkpoint, revision = self.model["checkpoint"], self.model["revision"]
        held = LoadOptions(self.model["dtype"], variant=self.model.get("variant"))
        pipe = load(self.adapter, checkpoint, dtype=None, device=device, revision=revision, load_options=held)
        self._open.enter_context(encode_once(pipe))
        return pipe


def quieten() -> None:
    """Hide the libraries' own bars, which would tear ours apart."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
