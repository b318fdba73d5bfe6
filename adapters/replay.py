"""A diffusers scheduler as a solver's problem: the pipeline's own steps, replayed from any state with any history."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genrun.adapters.noise_levels import NoiseLevels
from genrun.solvers.contract import History

Generators = torch.Generator | list[torch.Generator] | None


class Replay:
    """Makes the steps of one pipeline call: scheduler, step arguments, randomness.

    A scheduler's memory is what its `__dict__` holds (step index, earlier outputs, last sample). It is copied out after
    a step and put back before the next, so that steps can be taken in any order from any history. The noise of step i is
    what the plain pipeline would draw there: the generator is put into the state that i sequential steps leave it in.

    Args:
        scheduler: the real scheduler, after `set_timesteps`.
        x_start: the latents before the first step, as the pipeline made them, (B, ...).
        output: any model output of this call, for its dtype and shape.
        generator: what the pipeline passes to `step`, or None for torch's global one.
        arguments: other arguments of `step`, such as eta.
        held: dtype that the pipeline casts the latents to after each step; None where it leaves them as they are.
    """

    def __init__(
        self,
        scheduler: Any,
        x_start: Tensor,
        output: Tensor,
        generator: Generators = None,
        arguments: Mapping[str, Any] | None = None,
        held: torch.dtype | None = None,
    ) -> None:
        self.scheduler = scheduler
        self.timesteps = list(scheduler.timesteps)
        self.start_dtype, self.output_dtype = x_start.dtype, output.dtype
        self._arguments = arguments or {}
        self._parameters = inspect.signature(scheduler.step).parameters
        self._generators = _clones(generator, x_start.device)
        self._noise_start = [g.get_state() for g in self._generators]
        self._passes_generator = "generator" in self._parameters
        self._start = _remember(scheduler)
        first, _, _ = self._call(0, x_start, output, (self._start, None))
        self.dtype, self._strides = held or first.dtype, first.stride()
        self._states = self._trace_noise(x_start, output)

    def begin(self) -> History:
        """Memory before step 0."""
        return self._start, None

    def step(self, index: int, x: Tensor, output: Tensor, history: History) -> tuple[Tensor, History]:
        """The scheduler's step, on tensors of the pipeline's own dtypes, (B, ...)."""
        if self._states is not None:
            _restore_noise(self._generators, self._states[index])
        stepped, memory, extra = self._call(index, x.to(self.dtype_at(index)), output.to(self.output_dtype), history)
        return stepped.to(self.dtype), (memory, extra)

    def carries(self, index: int) -> bool:
        """Whether a corrector (UniPC) makes step `index` from the last sample that it remembers, not from the one given."""
        corrects = index > 0 and hasattr(self.scheduler, "last_sample")
        return corrects and index - 1 not in self.scheduler.config.get("disable_corrector", ())

    def as_held(self, index: int, x: Tensor) -> Tensor:
        """Latents as the plain pipeline would hold them before step `index`: same dtype, same memory layout."""
        x = x.to(self.dtype_at(index))
        if index == 0 or x.stride() == self._strides:
            return x
        return torch.empty_strided(x.shape, self._strides, dtype=x.dtype, device=x.device).copy_(x)

    def dtype_at(self, index: int) -> torch.dtype:
        """The dtype of the latents that the plain pipeline holds before step `index`."""
        return self.start_dtype if index == 0 else self.dtype

    def _call(self, index: int, x: Tensor, output: Tensor, history: History) -> tuple[Tensor, dict[str, Any], Any]:
        memory, extra = history
        _recall(self.scheduler, memory)
        arguments = {k: v for k, v in self._arguments.items() if k in self._parameters}
        if self._passes_generator:
            arguments["generator"] = self._generators if len(self._generators) > 1 else self._generators[0]
        timestep = self.timesteps[index]
        if "old_pred_original_sample" in self._parameters:
            back = self.timesteps[index - 1] if index > 0 else None
            result = self.scheduler.step(output, extra, timestep, back, x, **arguments, return_dict=False)
            return result[0], _remember(self.scheduler), result[1]
        result = self.scheduler.step(output, timestep, x, **arguments, return_dict=False)
        return result[0], _remember(self.scheduler), None

    def _trace_noise(self, x: Tensor, output: Tensor) -> list[list[Tensor]] | None:
        """Generator states before each step, or None for a scheduler that draws nothing.

        How much a step draws does not depend on values, so a dry run with any output finds the states.
        """
        _restore_noise(self._generators, self._noise_start)
        states, history = [self._noise_start], self.begin()
        for index in range(len(self.timesteps)):
            x, memory, extra = self._call(index, x, output, history)
            history = (memory, extra)
            states.append([g.get_state() for g in self._generators])
            if index == 0 and all(torch.equal(a, b) for a, b in zip(states[0], states[1], strict=True)):
                return None
        return states


class Lane:
    """One sample of a pipeline call, as a solver's problem. States are float32 with a batch dimension of 1.

    Args:
        replay: the call's steps.
        levels: noise levels of its grid.
        x_start: latents of the whole batch, (B, ...).
        row: which sample of the batch.
    """

    def __init__(self, replay: Replay, levels: NoiseLevels, x_start: Tensor, row: int) -> None:
        self._replay, self._levels, self._row, self._batch = replay, levels, row, x_start.shape[0]
        self.x_start = x_start[row : row + 1].float()
        self.num_steps = len(replay.timesteps)
        self.floor = torch.finfo(replay.dtype).eps

    def begin(self) -> History:
        """Memory before step 0."""
        return self._replay.begin()

    def step(self, index: int, x: Tensor, output: Tensor, history: History) -> tuple[Tensor, History]:
        """The scheduler's step; in a batch, the other rows are fillers, so that noise is drawn as for the batch."""
        if self._batch > 1:
            x, output = _fill(x, self._batch), _fill(output, self._batch)
        stepped, history = self._replay.step(index, x, output, history)
        return stepped[self._row : self._row + 1].float(), history

    def carries(self, index: int) -> bool:
        """Whether step `index` takes its state from the scheduler's memory."""
        return self._replay.carries(index)

    def moved(self, index: int, history: History, change: Tensor) -> History:
        """The memory with its last sample, x_{i-1} as corrected, moved so that x_i moves by `change` while X0 is held."""
        memory, extra = history
        if index == self.num_steps or not self.carries(index):
            return history
        last = memory["last_sample"]
        moved = last + change * (self.sigma(index - 1) / self.sigma(index))
        return {**memory, "last_sample": moved.to(last.dtype)}, extra

    def hold(self, index: int, x: Tensor) -> Tensor:
        """Round to the dtype of the pipeline's latents."""
        return x.to(self._replay.dtype_at(index)).float()

    def predict_x0(self, index: int, x: Tensor, output: Tensor) -> Tensor:
        """X0, float32."""
        return self._levels.predict_x0(index, x, output.float())

    def from_x0(self, index: int, x: Tensor, x0: Tensor) -> Tensor:
        """The model output whose prediction is x0, float32."""
        return self._levels.from_x0(index, x, x0)

    def alpha(self, index: int) -> float:
        """Signal level."""
        return self._levels.alphas[index]

    def sigma(self, index: int) -> float:
        """Noise level."""
        return self._levels.sigmas[index]


def _fill(x: Tensor, batch: int) -> Tensor:
    return x.expand(batch, *x.shape[1:])


def _remember(scheduler: Any) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, list) else value for key, value in vars(scheduler).items()}


def _recall(scheduler: Any, memory: dict[str, Any]) -> None:
    state = vars(scheduler)
    for key in state.keys() - memory.keys():
        del state[key]
    state.update({key: list(value) if isinstance(value, list) else value for key, value in memory.items()})


def _clones(generator: Generators, device: torch.device) -> list[torch.Generator]:
    """Copies of the call's generators, so that the caller's own are left as they were."""
    if generator is None:
        state = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
        return [torch.Generator(device).set_state(state)]
    generators = generator if isinstance(generator, list) else [generator]
    return [torch.Generator(g.device).set_state(g.get_state()) for g in generators]


def _restore_noise(generators: list[torch.Generator], states: list[Tensor]) -> None:
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
