"""What there is between two steps: a scheduler's memory, what the models keep, and what the loop has made of its latents.

A memory is what the scheduler's `__dict__` holds, taken out after a step and put back before another. Tensors are shared by
memories, and copied where a scheduler changes them in place; what holds them is copied always. Of its latents a loop makes
roundings, casts, and blends with a picture.
"""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genrun.adapters.errors import RefusedError
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


OF_LAYERS = frozenset({bool, str, type(None), set})
"""Types of most attributes of a layer, which keep nothing."""
CONTAINERS = frozenset({dict, OrderedDict, list, tuple})
NUMBERS = frozenset({int, float})
WEIGHTS = {"_parameters", "_buffers", "_modules"}
UNSEEN = WEIGHTS.union(name for name in vars(torch.nn.Module()) if "backward" in name or "state_dict" in name)
"""Attributes of a layer: what it computes with, and hooks that an evaluation does not call."""
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
"""Attributes of a layer: what is called before and after it, by its number."""
OF_LIBRARIES = (*FOREIGN, "accelerate", "peft", "transformers", "cache_dit", "genrun", "tqdm", "logging", "PIL")
"""Packages whose hooks and processors are known to keep nothing, or are looked for by name."""
Values = dict[tuple[Any, ...], Any]


class ModelWatch:
    """What the models of a pipeline keep from one evaluation to the next, as a cache does that is patched into them.

    In attributes of their layers, and in what their hooks, processors and patched methods hold: objects, containers,
    variables around a function. An evaluation may keep what never changes again, such as frequencies, so that the second
    one is compared with the first. A hook that only looks on, and counts, changes nothing: it is asked in a third. A VAE
    counts its layers while it decodes, which it does between evaluations, too: previews, or the item before in a thread.

    Args:
        pipe: whose models they are.
    """

    def __init__(self, pipe: Any) -> None:
        models = {
            name: part for name, part in getattr(pipe, "components", {}).items() if isinstance(part, torch.nn.Module)
        }
        self._pipe, self._models = pipe, {name: part for name, part in models.items() if not hasattr(part, "decode")}
        self._before: dict[tuple[str, torch.nn.Module], Values] | None = None
        self._asked: list[tuple[str, dict[Any, Any], Any, AskedHook]] = []

    def check(self) -> bool:
        """Look after an evaluation; return True once all is known. Raises RefusedError where the models keep something."""
        if self._asked:
            told = next((name for name, _, _, asked in self._asked if asked.changes), None)
            self.end()
            if told is not None:
                raise self._refusal(told)
            return True
        before, self._before = self._before, self._values()
        for (part, layer), now in self._before.items() if before else ():
            # What is new comes of a model's first evaluation: that of a second one at lower noise (Wan 2.2).
            was = (before or {}).get((part, layer), now)
            for path in (path for path in now if path in was and _is_other(was[path], now[path])):
                owner = next(name for name, each in self._models[part].named_modules(prefix=part) if each is layer)
                name = ".".join(map(str, (owner, *path)))
                if path[0] not in HOOKS:
                    raise self._refusal(name)
                self._ask(name, vars(layer)[path[0]], path[1])
        return before is not None and not self._asked

    def end(self) -> None:
        """Ask hooks no longer."""
        for _, hooks, key, asked in self._asked:
            hooks[key] = asked.hook
        self._asked = []

    def _ask(self, name: str, hooks: dict[Any, Any], key: Any) -> None:
        if not isinstance(hooks[key], AskedHook):
            hooks[key] = AskedHook(hooks[key])
            self._asked.append((name, hooks, key, hooks[key]))

    def _refusal(self, name: str) -> RefusedError:
        return RefusedError(
            f"this pipeline's model keeps {name} from evaluation to evaluation, and a solver takes steps out "
            "of order; take out what was patched into it and use genrun's cache, or use solver sequential"
        )

    def _values(self) -> dict[tuple[str, torch.nn.Module], Values]:
        """Return the tensors and numbers that each layer holds: with a tensor, how often it was changed."""
        seen = {id(self._pipe)}
        return {
            (part, layer): _values_of(layer, seen) for part, model in self._models.items() for layer in model.modules()
        }


class AskedHook:
    """Stands in for a hook of a layer, and notes whether it changes what the layer is given or gives."""

    def __init__(self, hook: Any) -> None:
        self.hook, self.changes = hook, False

    def __call__(self, layer: torch.nn.Module, *given: Any) -> Any:
        """Call the hook, and look at what it returns and what it has written into."""
        tensors = tensors_in([*given])
        before = [(id(each), 0 if each.is_inference() else each._version) for each in tensors]
        found = self.hook(layer, *given)
        now = [(id(each), 0 if each.is_inference() else each._version) for each in tensors]
        same = found is None or [*map(id, tensors_in([found]))] in (
            [*map(id, tensors_in([given[-1]]))],
            [*map(id, tensors)],
        )
        self.changes |= not same or now != before
        return found


def _values_of(layer: torch.nn.Module, seen: set[int]) -> Values:
    """Return the tensors and numbers that a layer holds. What most attributes are is told first: there are thousands."""
    found: Values = {}
    for name, value in vars(layer).items():
        kind = type(value)
        if kind in OF_LAYERS or name in UNSEEN or (kind in CONTAINERS and not value):
            continue
        if kind in NUMBERS:
            found[name,] = value
        elif kind is tuple and all(type(each) in NUMBERS for each in value):
            found[name,] = [*value]  # such as a stride
        else:
            found.update(_numbers((name,), value, seen))
    return found


def _numbers(path: tuple[Any, ...], value: Any, seen: set[int]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield the tensors and numbers that a value is or holds, each with the way to it, and how much a container holds."""
    if isinstance(value, Tensor):
        yield path, (value, 0 if value.is_inference() else value._version)
    elif isinstance(value, int | float):
        yield path, value
    elif len(path) <= 2 * DEPTH and id(value) not in seen and (held := _held(value)):
        seen.add(id(value))
        if isinstance(value, list | dict | deque):
            yield (*path, "len"), len(value)
        for key, each in held.items():
            yield from _numbers((*path, key), each, seen)


def _held(value: Any) -> Mapping[Any, Any] | None:
    """Return what a container, a function or an object of one's own holds, by name; None for others."""
    held: Mapping[Any, Any] | None = None
    if isinstance(value, dict):
        held = value
    elif isinstance(value, list | tuple | deque):
        held = dict(enumerate(value))
    elif isinstance(value, partial):
        held = {"func": value.func, **dict(enumerate(value.args)), **value.keywords}
    elif isinstance(value, MethodType):
        held = {"self": value.__self__, "func": value.__func__}
    elif isinstance(value, FunctionType):
        held = _around(value)
    elif type(value).__name__ == "HookRegistry":  # of diffusers, with hooks that may be one's own
        held = value.hooks
    elif not isinstance(value, torch.nn.Module | type | ModuleType):
        foreign = type(value).__module__.startswith(OF_LIBRARIES) or hasattr(type(value), "step")
        held = None if foreign else getattr(value, "__dict__", None)
    return held


def _around(function: FunctionType) -> Mapping[str, Any] | None:
    """Return the variables around a function of one's own that it names."""
    if function.__module__.startswith(OF_LIBRARIES):
        return None
    code, scope = function.__code__, function.__globals__
    held = {name: scope[name] for name in code.co_names if name in scope}
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    held |= {name: cell.cell_contents for name, cell in cells if cell != CellType()}
    return {**held, **vars(function)}


def _is_other(before: Any, now: Any) -> bool:
    """Return whether a value is another tensor, one that was changed in place, or another number."""
    if isinstance(before, tuple) and isinstance(now, tuple):
        return before[0] is not now[0] or before[1] != now[1]
    return isinstance(before, tuple) or isinstance(now, tuple) or before != now
