"""State that a pipeline or its guider keeps from one model call to the next beside the latents, such as a momentum.

It belongs to a trajectory like the latents, so that it steps with them: the kept tensor after an evaluation is what goes
into the next. Found by what changes in an evaluation, not by names.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from inspect import CO_GENERATOR
from types import FrameType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor

from genrun.adapters.checkpoint.diffusers_source import loops_of_type
from genrun.adapters.errors import RefusedError
from genrun.adapters.scheduler.between_steps import ModelWatch
from genrun.adapters.scheduler.joined import Part
from genrun.adapters.shapes import AnyLatents

Path = tuple[Any, ...]
"""Attributes, places and keys that lead to a value: the first is the name of what the loop holds."""
DEPTH = 4
"""Attributes of attributes that are looked through: a guider's buffer's tensor in a list is the fourth."""
FOREIGN = ("torch", "transformers", "tokenizers", "numpy", "PIL", "tqdm", "builtins", "functools", "genrun")
"""Packages whose objects keep nothing of a trajectory."""
ABSENT = object()


def frame_of(pipe: Any) -> FrameType:
    """Return the frame of the pipeline's method whose loop is running, the outermost one where there is none."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_locals.get("self") is not pipe:
        frame = frame.f_back
    return frame


def loop_of() -> FrameType:
    """Return the frame of the loop that asks for its next timestep: the first caller that is no generator."""
    frame = sys._getframe(1)
    while frame.f_back is not None and not _is_loop(frame):
        frame = frame.f_back
    return frame


def _is_loop(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__", "")
    return not frame.f_code.co_flags & CO_GENERATOR and not name.startswith(
        (*FOREIGN, "jaxtyping")
    )  # around checked ones


class CarriedOver:
    """Stands in for a scheduler: the next state is what the evaluation has left."""

    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, *, return_dict: bool = False) -> tuple[Tensor]:
        """Return the model output."""
        del timestep, sample, return_dict
        return (model_output,)


class CounterWatch:
    """The numbers that an object counts: those read in an evaluation before they are written there.

    Put back before an evaluation is what the one of the step before has left: its number, or what grows evenly.

    Args:
        name: what the loop calls the object.
        one: the object.
    """

    def __init__(self, name: str, one: Any) -> None:
        self.name, self.one, self._plain = name, one, type(one)
        self._written, self._read = set[str](), set[str]()
        self._start: dict[str, Any] = {}
        self._before: dict[str, Any] = {}
        self._left: dict[str, tuple[float, float]] = {}
        one.__class__ = _watched(self._plain, self._written, self._read)

    def end(self) -> None:
        """Watch no longer."""
        self.one.__class__ = self._plain

    def begin(self, index: int | None) -> None:
        """Put back what an evaluation of step `index` begins with; None for the loop's first, which begins as it is."""
        held = _attributes_of(self.one)
        for key, (first, growth) in self._left.items():
            held[key] = self._start[key] if index == 0 else first + growth * ((index or 0) - 1)
        self._before = dict(held)
        if index is None:
            self._start = self._before
        self._written.clear()
        self._read.clear()

    def check(self, index: int) -> None:
        """Learn what an evaluation has counted. Raises RefusedError where that is neither steps nor even."""
        for key, value in _attributes_of(self.one).items():
            before = self._before.get(key)
            if type(value) not in (int, float) or not (key in self._left or (key in self._read and before != value)):
                continue
            if key not in self._left and value == index:
                self._left[key] = 0, 1
            elif key not in self._left and index == 0 and type(before) in (int, float):
                self._left[key] = value, value - before
            first, growth = self._left.get(key, (math.nan, 0))
            if value != first + growth * index:
                raise RefusedError(
                    f"this pipeline counts in {self.name}.{key} from step to step ({before} became {value:g}), and a solver "
                    "takes steps out of order; use solver sequential"
                )


class Kept:
    """The kept tensors of one loop of a pipeline.

    Args:
        pipe: whose loop it is.
        caches: True where a cache of genrun's is at work in its models, which keeps what it keeps by the step.
    """

    def __init__(self, pipe: Any, *, caches: bool = False) -> None:
        self._pipe = pipe
        self._models = None if caches else ModelWatch(pipe)
        self._roots: dict[str, Any] = {}
        self._before: dict[Path, tuple[Any, int]] = {}
        self._first: dict[Path, Any] = {}
        self._paths: list[Path] | None = None
        self._values: list[Tensor] = []
        self._watches: list[CounterWatch] = []
        loops = loops_of_type(type(pipe))
        self._carried = () if loops is None else loops.carried
        self._variables: dict[str, Any] = {}
        self._elsewhere = ""

    def look(self) -> None:
        """Note what there is before the first evaluation. Called in the loop, by what it iterates over."""
        if self._paths is not None:
            return
        loop = loop_of()
        self._elsewhere = "" if loop.f_locals.get("self") is self._pipe else loop.f_code.co_qualname
        local = frame_of(self._pipe).f_locals
        self._variables = {name: local.get(name) for name in self._carried}
        held = {**vars(self._pipe), **local}
        self._roots = {name: one for name, one in held.items() if one is not self._pipe and keeps(one)}
        self._roots[type(self._pipe).__name__] = Held(vars(self._pipe))
        there = dict(self._leaves())
        self._before = {path: (each, each._version) for path, each in there.items() if isinstance(each, Tensor)}
        self._first = {path: each.clone() if isinstance(each, Tensor) else each for path, each in there.items()}
        if not self._watches:
            self._watch()
        for watch in self._watches:
            watch.begin(None)

    def recall(self, index: int) -> None:
        """Put back what an evaluation of step `index` begins with, `keep` has said what that is.

        Raises:
            RefusedError: a variable of the loop has changed, which cannot be put back.
        """
        if self._variables:
            self._check_variables(frame_of(self._pipe).f_locals)
        if index == 0:
            for path in self._paths or ():
                known = next((path[:end] for end in range(len(path), 1, -1) if path[:end] in self._first), path)
                _put(self._roots, known, self._first.get(known, ABSENT))
        else:
            for path, value in zip(self._paths or (), self._values, strict=False):
                _put(self._roots, path, value)
        for watch in self._watches:
            watch.begin(index)

    def after(self, index: int, x: AnyLatents) -> list[Part]:
        """Return what an evaluation of step `index` has left: for each kept tensor the new one, and what it began with.

        Raises:
            RefusedError: something is kept that is no tensor of the batch, or not from the first step on; or the loop is not
                in a method of the pipeline, so that what it counts and carries over is not known.
        """
        if self._elsewhere:
            raise RefusedError(
                f"the loop of this {type(self._pipe).__name__} is in {self._elsewhere}, not in a method of the pipeline, "
                "so that what it carries from step to step is not known; use a pipeline class with a loop of its own, or "
                "solver sequential"
            )
        for watch in self._watches:
            watch.check(index)
        if self._models is not None and self._models.check():
            self._models = None
        now = {path: each for path, each in self._leaves() if isinstance(each, Tensor) and each.ndim}
        changed = [path for path, value in now.items() if self._is_new(path, value)]
        if self._paths is None:
            self._paths = changed
            self._values = [now[path].clone() for path in changed]
            for path, value in zip(changed, self._values, strict=True):
                if value.ndim < 2 or value.shape[0] != x.shape[0] or not value.is_floating_point():
                    raise RefusedError(
                        f"this pipeline keeps {_spell(path)} from step to step, {tuple(value.shape)} of {value.dtype}, "
                        "which is no state of each sample; use solver sequential"
                    )
        late = next((path for path in changed if path not in self._paths), None)
        if late is not None:
            raise RefusedError(
                f"this pipeline keeps {_spell(late)} from step to step, and begins with it in a later step than the first, "
                "as guidance does that is switched on there; use solver sequential"
            )
        return [Part(now[path], value) for path, value in zip(self._paths, self._values, strict=True)]

    def keep(self, values: Sequence[Tensor]) -> None:
        """Note what the next evaluation begins with, in the order of `after`."""
        self._values = list(values)

    def end(self) -> None:
        """Watch no longer."""
        for watch in self._watches:
            watch.end()
        self._watches = []
        if self._models is not None:
            self._models.end()

    def _check_variables(self, local: Mapping[str, Any]) -> None:
        for name, before in self._variables.items():
            now = local.get(name)
            if now is before or _is_same(now, before):
                continue
            raise RefusedError(
                f"this pipeline takes `{name}` over from one step to the next, and a solver takes steps out of order; "
                "use solver sequential"
            )

    def _is_new(self, path: Path, value: Tensor) -> bool:
        before, version = self._before.get(path, (None, 0))
        return before is not value or value._version != version

    def _leaves(self) -> Iterator[tuple[Path, Any]]:
        seen = set[int]()
        for name, root in self._roots.items():
            yield from _walk((name,), root, seen)

    def _watch(self) -> None:
        """Watch the attributes of the pipeline and of what it holds."""
        for name, one in self._roots.items():
            with suppress(TypeError):  # of another layout in memory: no attributes to watch
                self._watches.append(CounterWatch(name, self._pipe if isinstance(one, Held) else one))


@dataclass(frozen=True)
class Held:
    """A pipeline's own attributes, of which tensors alone count: what else it holds are roots themselves."""

    attributes: dict[str, Any]


def _watched(plain: Any, written: set[str], read: set[str]) -> type:
    def get(self: Any, name: str) -> Any:
        if name not in written:
            read.add(name)
        return plain.__getattribute__(self, name)

    def put(self: Any, name: str, value: Any) -> None:
        written.add(name)
        plain.__setattr__(self, name, value)

    members = {"__getattribute__": get, "__setattr__": put, "__module__": plain.__module__}
    return type(plain.__name__, (plain,), members)


def _attributes_of(one: Any) -> dict[str, Any]:
    return object.__getattribute__(one, "__dict__")


def _is_same(now: Any, before: Any) -> bool:
    """Return whether a variable holds what it held, cast to another type or repeated along its batch."""
    if not (isinstance(now, Tensor) and isinstance(before, Tensor) and now.ndim and now.shape[1:] == before.shape[1:]):
        return False
    if now.shape[0] > before.shape[0] > 0:
        copies = -(-now.shape[0] // before.shape[0])
        before = before.repeat(copies, *[1] * (before.ndim - 1))[: now.shape[0]]
    if now.shape != before.shape:
        return False
    return torch.equal(now.to(before.dtype), before) or torch.equal(before.to(now.dtype), now)


def keeps(one: Any) -> bool:
    """Return whether an object may keep something of a trajectory in its attributes, as a guider does."""
    if isinstance(one, torch.nn.Module | Tensor | type | ModuleType | FunctionType | MethodType | FrameType | dict):
        return False
    # Schedulers have a memory of their own; processors of pictures and prompts only read.
    if hasattr(type(one), "step") or type(one).__name__.endswith(("Processor", "Tokenizer", "Scheduler", "Pipeline")):
        return False
    return hasattr(one, "__dict__") and not type(one).__module__.startswith(FOREIGN)


def _walk(path: Path, value: Any, seen: set[int]) -> Iterator[tuple[Path, Any]]:
    """Yield what is below an object and has nothing below it."""
    inside = _inside(value) if len(path) <= DEPTH and id(value) not in seen else None
    if inside is None:
        yield path, value
        return
    seen.add(id(value))
    for key, each in inside:
        if isinstance(each, Tensor) or not isinstance(value, Held):
            yield from _walk((*path, key), each, seen)


def _inside(value: Any) -> list[tuple[Any, Any]] | None:
    if type(value) in (list, tuple):
        return list(enumerate(value))
    attributes = _attributes(value)
    return None if attributes is None else list(attributes.items())


def _attributes(value: Any) -> dict[Any, Any] | None:
    if isinstance(value, Held):
        return value.attributes
    if type(value) is dict:
        return value
    return _attributes_of(value) if keeps(value) else None


def _put(owner: Any, path: Path, value: Any) -> Any:
    """Put in a value, or take it out; returns the owner, another one where that is a tuple."""
    key, rest = path[0], path[1:]
    inside = list(owner) if isinstance(owner, tuple) else owner if isinstance(owner, list) else _attributes(owner)
    assert inside is not None
    if value is ABSENT and not rest:
        del inside[key]
    else:
        inside[key] = _put(inside[key], rest, value) if rest else value
    return tuple(inside) if isinstance(owner, tuple) else owner


def _spell(path: Path) -> str:
    return ".".join(map(str, path))
