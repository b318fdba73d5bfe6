"""A diffusers scheduler as a solver's problem: the pipeline's own steps, replayed from any state with any history."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genrun.adapters.errors import RefusedError
from genrun.adapters.scheduler.between_steps import (
    Blends,
    Casts,
    Memory,
    copied,
    recall,
    remember,
    tensors_in,
    versions,
)
from genrun.adapters.scheduler.noise import Generators, Noise, NoiseLevels, State, moved
from genrun.adapters.shapes import Latents, Output, Sample, SampleOutput
from genrun.solvers.contract import History

OLD_PREDICTION = "old_pred_original_sample"
"""An argument of `step` that is the second thing that the step before returned (CogVideoXDPMScheduler)."""
FOLLOWED = ("model_output", "timestep", "sample", "eta", "generator", OLD_PREDICTION, "timestep_back")
"""Arguments of `step` that are known of every step; what else the loop gives belongs to the evaluation before it."""


@dataclass(frozen=True)
class ReplayedStep:
    """The return value of a scheduler's step: the next latents, and the rest."""

    x: Latents
    others: tuple[Any, ...]


class Replay:
    """Makes the steps of one pipeline call: scheduler, step arguments, randomness.

    A scheduler's memory is what its `__dict__` holds. It is copied out after a step and put back before the next, so that
    steps can be taken in any order from any history. The noise of step i is what N steps in order would draw there: the
    generators are put into the states that i of them leave.

    Args:
        scheduler: the real scheduler, after `set_timesteps`.
        x_start: the latents before the first step, as the pipeline made them, (B, ...).
        output: any model output of this call, for its dtype and shape.
        generator: what the pipeline was called with; None for torch's global ones.
        arguments: other arguments of `step`, such as eta.
        window: the steps that are taken; all where None.
        by_step: further arguments of `step`, as far as the loop has passed them: a live mapping. A step that the loop has
            not come to yet gets those of the last before it.

    Attributes:
        stochastic: whether steps draw noise.
        others: how many things `step` returns beside the latents.
    """

    def __init__(
        self,
        scheduler: Any,
        x_start: Latents,
        output: Output,
        generator: Generators = None,
        arguments: Mapping[str, Any] | None = None,
        window: range | None = None,
        by_step: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> None:
        self.scheduler, self._by_step = scheduler, by_step if by_step is not None else {}
        self.timesteps = [scheduler.timesteps[place] for place in window or range(len(scheduler.timesteps))]
        self.start_dtype, self.output_dtype = x_start.dtype, output.dtype
        self._parameters = inspect.signature(scheduler.step).parameters
        self._arguments = {k: v for k, v in (arguments or {}).items() if k in self._parameters}
        self._noise = Noise(generator, x_start.device)
        self._noise_start = self._noise.state()
        self._start = remember(scheduler)
        self._changed_in_place: frozenset[Any] = frozenset()
        self._changes_inputs = False
        # Arguments may be as large as the latents.
        whole = any(isinstance(value, Tensor) and value.ndim for value in self._further(0).values())
        corner = (x_start, output) if whole else (_corner(x_start), _corner(output))
        with torch.inference_mode(False), torch.no_grad():  # inference tensors do not count their changes in place
            self._memories, self.stochastic = self._rehearse(*corner)
        with self._noise.drawn():
            first, _, _ = self._call(0, x_start.clone(), output.clone(), self.begin())
        self._corner = corner
        self._returned = [x_start.dtype, *[first.x.dtype] * len(self.timesteps)]  # of each state, before a cast
        self._held, self._given = None, first.x.dtype
        self._check_dtypes()
        self._strides, self.others = first.x.stride(), len(first.others)
        self._states = self._trace_noise(x_start, output) if self.stochastic else None

    def begin(self) -> History:
        """Return the memory before step 0."""
        return self._start, None

    def step(self, index: int, x: Latents, output: Output, history: History) -> tuple[ReplayedStep, History]:
        """Take the scheduler's step, on tensors of the pipeline's own dtypes, (B, ...)."""
        if self._states is not None:
            self._noise.set_state(self._states[index])
        x = x.to(self.start_dtype) if index == 0 else x.to(self._given)
        output = output.to(self.output_dtype)
        if self._changes_inputs:
            x, output = x.clone(), output.clone()
        with self._noise.drawn():
            stepped, memory, extra = self._call(index, x, output, history)
        return ReplayedStep(stepped.x.to(self.dtype_at(index + 1)), stepped.others), (memory, extra)

    def leave_noise(self, generator: Generators) -> None:
        """Leave what is drawn from as the last step does; `generator` is what the pipeline hands to its steps."""
        if self._states is not None:
            self._noise.leave(generator, self._states[-1])

    def show(self, index: int) -> None:
        """Leave the scheduler as the plain pipeline's loop would find it before step `index`, but for latents that it keeps.

        A loop asks it for more than steps: `scale_model_input` of some depends on the stage of a step.
        """
        recall(self.scheduler, self._memories[index])

    def carries(self, index: int) -> bool:
        """Return whether a corrector (UniPC) makes step `index` from the sample that it remembers, not the one given."""
        corrects = index > 0 and self._memories[index].get("last_sample") is not None
        return corrects and index - 1 not in self.scheduler.config.get("disable_corrector", ())

    def as_held(self, index: int, x: Latents) -> Latents:
        """Return latents as the plain pipeline's step returns them before step `index`: same dtype, same memory layout."""
        x = x.to(self.dtype_at(index))
        x = x.to(self._returned[index])
        if index == 0 or x.stride() == self._strides:
            return x
        return torch.empty_strided(x.shape, self._strides, dtype=x.dtype, device=x.device).copy_(x)

    def dtype_at(self, index: int) -> torch.dtype:
        """Return the dtype of the latents that the plain pipeline holds before step `index`."""
        return self._held if self._held is not None and index > 0 else self._returned[index]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype whose values the loop's latents have at last."""
        return self.dtype_at(len(self.timesteps))

    def cast(self, casts: Casts) -> None:
        """Follow a loop that casts its latents between two steps: what a step returns may follow what it is given."""
        self._held, self._given = casts.held, casts.given
        (x, output), history = (each.clone() for each in self._corner), self.begin()
        with self._noise.drawn():
            for index in range(len(self.timesteps)):
                stepped, memory, extra = self._call(index, x, output.clone(), history)
                history = memory, extra
                self._returned[index + 1] = stepped.x.dtype
                x = stepped.x.to(casts.given)
        self._check_dtypes()

    def _check_dtypes(self) -> None:
        """Refuse latents of more digits than a solver keeps. Raises RefusedError."""
        if torch.float64 in self._returned:
            raise RefusedError(
                "this pipeline's latents are torch.float64, and solvers keep float32: the last digits would be others; "
                "use pipe.to(torch.float32), or call it without genrun"
            )

    def _call(self, index: int, x: Latents, output: Output, history: History) -> tuple[ReplayedStep, Memory, Any]:
        memory, extra = history
        if self._changed_in_place:
            memory = {key: copied(v) if key in self._changed_in_place else v for key, v in memory.items()}
        recall(self.scheduler, memory)
        return self._take(index, x, output, extra)

    def _take(self, index: int, x: Latents, output: Output, extra: Any) -> tuple[ReplayedStep, Memory, Any]:
        """Take a step from the memory that the scheduler has."""
        arguments = {**self._arguments, **self._further(index)}
        if "generator" in self._parameters:
            arguments["generator"] = self._noise.of_step()
        timestep = self.timesteps[index]
        inputs: tuple[Any, ...] = (output, timestep, x)
        if OLD_PREDICTION in self._parameters:
            inputs = (output, extra, timestep, self.timesteps[index - 1] if index > 0 else None, x)
        stepped, *others = self.scheduler.step(*inputs, **arguments, return_dict=False)
        extra = others[0] if OLD_PREDICTION in self._parameters else None
        return ReplayedStep(stepped, tuple(others)), remember(self.scheduler), extra

    def _further(self, index: int) -> Mapping[str, Any]:
        if not self._by_step:
            return {}
        last = index if index in self._by_step else max((step for step in self._by_step if step < index), default=0)
        return self._by_step.get(last, {})

    def _rehearse(self, x: Latents, output: Output) -> tuple[list[Memory], bool]:
        """Take all steps on a corner of the latents, to learn what does not depend on values.

        Finds out which parts of its memory a scheduler changes in place, for these must not be shared by histories; and
        whether it does so with its inputs.

        Returns:
            The memory before each step and after the last, and whether any noise was drawn.
        """
        with self._noise.drawn():
            memories = self._walk(x, output)
        if memories is None:
            self._noise.set_state(self._noise_start)
            with self._noise.drawn():
                memories = self._walk_on_copies(x, output)
        after = self._noise.state()
        self._noise.leave_global(self._noise_start, after)
        self._noise.set_state(self._noise_start)
        return memories, moved(self._noise_start, after)

    def _walk(self, x: Latents, output: Output) -> list[Memory] | None:
        """Take all steps in order; return the memories, None where anything was or may be changed in place, as few do."""
        x, output, extra = x.clone(), output.clone(), None
        memory = {key: copied(value) for key, value in self._start.items()}
        memories, seen = [self._start], dict[int, tuple[Tensor, int]]()
        recall(self.scheduler, memory)
        for index in range(len(self.timesteps)):
            for each in tensors_in([x, output, *memory.values()]):
                if each.is_inference():  # which do not count their changes: a timestep that the scheduler keeps
                    return None
                seen.setdefault(id(each), (each, each._version))
            stepped, memory, extra = self._take(index, x, output, extra)
            x = stepped.x
            memories.append(memory)
        return memories if all(each._version == version for each, version in seen.values()) else None

    def _walk_on_copies(self, x: Latents, output: Output) -> list[Memory]:
        """Take all steps in order, each on copies of its own, and note what each changes in place; return the memories."""
        memories, changed, extra = [self._start], set[Any](), None
        for index in range(len(self.timesteps)):
            x, output = x.clone(), output.clone()
            memory = {key: copied(value) for key, value in memories[-1].items()}
            before = {key: versions(value) for key, value in memory.items()}
            inputs = versions([x, output])
            stepped, after, extra = self._call(index, x, output, (memory, extra))
            changed |= {key for key, value in memory.items() if versions(value) != before[key]}
            self._changes_inputs |= versions([x, output]) != inputs
            x = stepped.x
            memories.append(after)
        self._changed_in_place = frozenset(changed)
        return memories

    def _trace_noise(self, x: Latents, output: Output) -> list[State]:
        """Find the state of the noise before each step: how much one draws depends on shapes, and not on values."""
        self._noise.set_state(self._noise_start)
        states, history = [self._noise_start], self.begin()
        for index in range(len(self.timesteps)):
            with self._noise.drawn():
                stepped, memory, extra = self._call(index, x.clone(), output.clone(), history)
            x, history = stepped.x, (memory, extra)
            states.append(self._noise.state())
        return states


class Lane:
    """A sample of a pipeline call, as a solver's problem. States are float32 with a batch dimension of 1.

    Args:
        replay: the call's steps.
        levels: noise levels of its grid.
        x_start: the latents that `replay` steps, (B, ...).
        row: which of them.

    Attributes:
        replay: the steps.
        blends: what the loop made of states between two steps.
        last: what the last step has returned most recently, this sample's alone; None until it is taken.
    """

    def __init__(self, replay: Replay, levels: NoiseLevels, x_start: Latents, row: int) -> None:
        self.replay, self._levels, self._row, self._batch = replay, levels, row, x_start.shape[0]
        self.x_start = x_start[row : row + 1].float()
        self.num_steps = len(replay.timesteps)
        self.blends = Blends()
        self.last: ReplayedStep | None = None
        self._variance: Tensor | None = None

    @property
    def stochastic(self) -> bool:
        """True when steps draw noise."""
        return self.replay.stochastic

    @property
    def floor(self) -> float:
        """Smallest change that the loop's dtype can express in a state of unit size."""
        return torch.finfo(self.replay.dtype).eps

    def begin(self) -> History:
        """Return the memory before step 0."""
        return self.replay.begin()

    def step(self, index: int, x: Sample, output: SampleOutput, history: History) -> tuple[Sample, History]:
        """Take the scheduler's step; in a batch, other rows are fillers, so that noise is drawn as for the batch."""
        x = self.blends.applied(index, self.hold(index, x))
        if self._batch > 1:
            x, output = _fill(x, self._batch), _fill(output, self._batch)
        stepped, history = self.replay.step(index, x, output, history)
        if index == self.num_steps - 1 and stepped.others:
            self.last = ReplayedStep(self._own(stepped.x), tuple(map(self._own, stepped.others)))
        return self._own(stepped.x).float(), history

    def _own(self, value: Any) -> Any:
        return value[self._row : self._row + 1] if isinstance(value, Tensor) and value.ndim else value

    def carries(self, index: int) -> bool:
        """Return whether step `index` takes its state from the scheduler's memory."""
        return self.replay.carries(index)

    def moved(self, index: int, history: History, change: Sample) -> History:
        """Return the memory with its last sample, x_{i-1} as corrected, moved so that x_i moves by `change` with x0 held."""
        memory, extra = history
        if index == self.num_steps or not self.carries(index):
            return history
        last = memory["last_sample"]
        moved = last + change * (self.sigma(index - 1) / self.sigma(index))
        return {**memory, "last_sample": moved.to(last.dtype)}, extra

    def hold(self, index: int, x: Sample) -> Sample:
        """Round to the dtype of the pipeline's latents."""
        return x.to(self.replay.dtype_at(index)).float()

    def predict_x0(self, index: int, x: Sample, output: SampleOutput) -> Sample:
        """Return x0, float32; of an output that predicts the variance too, its other half is kept for guesses."""
        if x.ndim > 1 and output.shape[1] == 2 * x.shape[1]:
            output, self._variance = output.split(x.shape[1], dim=1)
        return self._levels.predict_x0(index, x, output.float())

    def from_x0(self, index: int, x: Sample, x0: Sample) -> SampleOutput:
        """Return the model output whose prediction is x0, float32."""
        output = self._levels.from_x0(index, x, x0)
        return output if self._variance is None else torch.cat([output, self._variance.to(output.dtype)], dim=1)

    def alpha(self, index: int) -> float:
        """Return the signal level."""
        return self._levels.alphas[index]

    def sigma(self, index: int) -> float:
        """Return the noise level."""
        return self._levels.sigmas[index]


def _fill(x: SampleOutput, batch: int) -> Output:
    return x.expand(batch, *x.shape[1:])


def _corner(x: Tensor) -> Tensor:
    """Return a few of the values of each sample and channel."""
    return x[..., :2, :2] if x.ndim > 3 else x[..., :2] if x.ndim > 2 else x
