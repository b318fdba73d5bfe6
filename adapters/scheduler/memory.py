"""A scheduler's memory: what its `__dict__` holds, taken out after a step and put back before another.

Tensors are shared by memories, and copied where a scheduler changes them in place. What holds them is copied always.
"""

from __future__ import annotations

import copy
from collections import deque
from typing import Any

import numpy as np
from torch import Tensor

from genrun.adapters.scheduler.joined import JoinedScheduler

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
