"""What there is between two steps: a scheduler's memory, and what a pipeline's loop has made of its latents.

A memory is what the scheduler's `__dict__` holds, taken out after a step and put back before another. Tensors are shared by
memories, and copied where a scheduler changes them in place; what holds them is copied always. Of its latents a loop makes
roundings, casts, and blends with a picture.
"""

from __future__ import annotations

import copy
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrun.adapters.scheduler.joined import JoinedScheduler
from genrun.adapters.shapes import Latents, Sample

Memory = dict[Any, Any]
"""A scheduler's `__dict__`: step index, earlier outputs, last sample."""
FOREIGN = ("diffusers", "torch", "numpy", "scipy", "builtins", "functools")
"""Packages whose objects are left as they are, and keep nothing of a trajectory: torchsde's noise goes by time."""
DEPTH = 4
"""Containers in containers that are looked through."""


def remember(scheduler: Any) -> Memory:
    """Return what a scheduler holds."""
    held = scheduler.memory if isinstance(scheduler, JoinedScheduler) else vars(scheduler)
    return {key: copied(value, tensors=False) for key, value in held.items()}


def recall(scheduler: Any, memory: Memory) -> None:
    """Put back what a scheduler held; the memory can be put back again."""
    memory = {key: copied(value, tensors=False) for key, value in memory.items()}
    if isinstance(scheduler, JoinedScheduler):
        scheduler.memory = memory
        return
    state = vars(scheduler)
    for key in state.keys() - memory.keys():
        del state[key]
    state.update(memory)


def copied(value: Any, *, tensors: bool = True, depth: int = DEPTH) -> Any:
    """Copy a part of a memory: containers, objects of one's own and arrays; tensors where that is asked for."""
    if isinstance(value, Tensor):
        return value.clone() if tensors else value
    held = _inside(value) if depth else None
    if held is None:
        return value.copy() if isinstance(value, np.ndarray) else value
    parts = {key: copied(each, tensors=tensors, depth=depth - 1) for key, each in held.items()}
    if isinstance(value, deque):
        return deque(parts.values(), value.maxlen)
    if isinstance(value, list | tuple | dict):
        return parts if isinstance(value, dict) else type(value)(parts.values())
    made = copy.copy(value)
    vars(made).update(parts)
    return made


def versions(value: Any) -> list[int]:
    """Count how often tensors were changed in place, alone or in what holds them."""
    return [each._version for each in tensors_in([value])]


def tensors_in(values: list[Any], depth: int = DEPTH) -> list[Tensor]:
    """Return the tensors among some values, and in what holds them."""
    found = list[Tensor]()
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif depth:
            found += tensors_in([*(_inside(value) or {}).values()], depth - 1)
    return found


def _inside(value: Any) -> dict[Any, Any] | None:
    """Return what a container holds, or an object of a class of one's own; None for others."""
    if type(value) in (list, tuple, deque):
        return dict(enumerate(value))
    if type(value) is dict:
        return value
    is_scheduler = hasattr(type(value), "step")
    foreign = callable(value) or is_scheduler or type(value).__module__.startswith(FOREIGN)
    return None if foreign or not hasattr(value, "__dict__") else vars(value)


DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
"""Those that latents may have, the narrowest first."""
KEPT = 8
"""Changes that are remembered of a step: a solver steps from the state that it had evaluated last, or a few before."""


@dataclass(frozen=True)
class Casts:
    """Dtypes of latents between two steps, where they are not the one that a step returns.

    Attributes:
        held: to which the loop rounds what it is handed; None where it keeps all digits.
        given: of what it hands to the next step.
    """

    held: torch.dtype | None
    given: torch.dtype

    def as_number(self) -> int:
        """Return a number for a message between ranks, at least 1."""
        held = 0 if self.held is None else DTYPES.index(self.held) + 1
        return held * (len(DTYPES) + 1) + DTYPES.index(self.given) + 1

    @classmethod
    def of_number(cls, number: int) -> Casts:
        """Return the inverse of `as_number`."""
        held, given = divmod(number, len(DTYPES) + 1)
        return cls(DTYPES[held - 1] if held else None, DTYPES[given - 1])


def casts_between(handed: Latents, back: Latents) -> tuple[Casts | None, bool]:
    """Return how the loop cast what it was handed, None where not at all; and whether casts explain all of its change."""
    if back.dtype == handed.dtype and torch.equal(back, handed):
        return None, True
    for dtype in (handed.dtype, *DTYPES[:2]):
        if torch.equal(handed.to(dtype).to(back.dtype), back):
            narrow = back.dtype if back.dtype.itemsize < dtype.itemsize else dtype
            return Casts(None if narrow == handed.dtype else narrow, back.dtype), True
    return (Casts(None, back.dtype) if back.dtype != handed.dtype else None), False


class Blends:
    """A sample's states as a solver has them, and as the loop came back with them.

    A step is taken from what came back. Where a solver steps a state that the loop has never seen, which is a guess, the
    change is guessed as well: values that the loop replaced before are replaced alike.
    """

    def __init__(self) -> None:
        self._seen: dict[int, deque[tuple[Tensor, Tensor]]] = defaultdict(lambda: deque(maxlen=KEPT))

    def note(self, index: int, handed: Tensor, back: Tensor) -> None:
        """Remember what came back for a state before step `index`."""
        self._seen[index].append((handed.float(), back.float()))

    def applied(self, index: int, x: Sample) -> Sample:
        """Return what the loop makes of a state before step `index`."""
        if not self._seen or index == 0:
            return x
        for handed, back in reversed(self._seen.get(index, ())):
            if torch.equal(handed, x):
                return back
        near = min(self._seen, key=lambda step: abs(step - index))
        handed, back = self._seen[near][-1]
        return torch.where(handed != back, back, x)
