"""The tables that a pipeline's loop reads from its scheduler: the real ones, seen from the point in work."""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from genrun.adapters.checkpoint.diffusers_source import PARSING

if TYPE_CHECKING:
    from genrun.adapters.scheduler.session import Session

GetSession = Callable[[], "Session"]


class TimestepTable(Tensor):
    """A scheduler's timesteps, or its noise levels, for the loop of a pipeline.

    It is the real tensor, in memory too, but for three things. Iterated by a loop that steps, it gives the timestep of each
    point that the solver asks for. An integer index counts from the point that the loop was given; a step leads on to
    another point than the next one, and `timesteps[i + 1]` is that point's after it. A slice is a window of the steps.
    """

    _active: GetSession
    _entered: GetSession
    _window: range
    _steps: int

    @classmethod
    def of(cls, real: Tensor, active: GetSession, entered: GetSession, window: range, steps: int) -> TimestepTable:
        """Return a view of a scheduler's table.

        Args:
            real: the table, or the part of it that is the window.
            active: returns the session of the current call.
            entered: the same for a loop that begins.
            window: places in the scheduler's table.
            steps: of the scheduler's grid.
        """
        table = torch.Tensor._make_subclass(cls, real)
        table._active, table._entered, table._window, table._steps = active, entered, window, steps
        return table

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute plain tensors."""
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    def __len__(self) -> int:
        return len(self._window) - self._active().ahead

    def __getitem__(self, place: Any) -> Tensor:
        plain = self.as_subclass(Tensor)
        session = self._active()
        if isinstance(place, slice) and session.ahead == 0:
            window = self._window[place]
            if window.step == 1 and len(window) > 0:
                return TimestepTable.of(plain[place], self._active, self._entered, window, self._steps)
        if type(place) is not int or place < 0 or session.ahead == 0:
            return plain[place]
        return plain[min(max(place + session.ahead, 0), len(self._window) - 1)]

    def __iter__(self) -> Iterator[Tensor]:
        return (t for _, t in self.enumerated())

    def enumerated(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the place in this window and the timestep of each point, until every sample has its solution.

        In order where nothing is stepped meanwhile.
        """
        plain = self.as_subclass(Tensor)
        window = range(self._window.start, min(self._window.stop, self._steps))
        session = self._entered()
        for place in self._window:
            if session.is_open:
                break
            session.look_at(window, place)
            yield place - self._window.start, plain[place - self._window.start]
        while session.is_open and not session.done:
            place, before = session.look_again(), session.evaluations
            yield place - window.start, plain[place - window.start]
            if session.evaluations == before:
                session.stop()
                yield from (
                    (later - window.start, plain[later - window.start]) for later in range(place + 1, window.stop)
                )
                return
        session.leave()


class FinishedTable(TimestepTable):
    """All timesteps, for what is done before a loop that takes no step."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, place: Any) -> Tensor:
        found = self.as_subclass(Tensor)[place]
        return torch.Tensor._make_subclass(FinishedTable, found) if isinstance(place, slice) else found

    def enumerated(self) -> Iterator[tuple[int, Tensor]]:
        """Yield nothing."""
        return iter(())


class LastTable(TimestepTable):
    """The last timestep, for a loop that runs once; of a strength's window of the steps, it is that as well."""

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.as_subclass(Tensor))

    def __getitem__(self, place: Any) -> Tensor:
        return self if isinstance(place, slice) else self.as_subclass(Tensor)[place]

    def enumerated(self) -> Iterator[tuple[int, Tensor]]:
        """Yield it."""
        return enumerate(self)


def counting(iterable: Iterable[Any], start: int = 0) -> Iterator[tuple[int, Any]]:
    """Stand in for `enumerate` in a pipeline: over a scheduler's timesteps it counts steps, not model calls."""
    inside = getattr(iterable, "iterable", iterable)  # of a progress bar
    if not isinstance(inside, TimestepTable):
        return builtins.enumerate(iterable, start)
    return ((start + place, t) for place, t in inside.enumerated())


def holding(variables: Mapping[str, Any], sample: Tensor) -> dict[str, Tensor]:
    """Return the variables of a loop that hold a state, or what it is a part of."""
    memory = sample.untyped_storage().data_ptr()
    tensors = {name: value for name, value in variables.items() if isinstance(value, Tensor)}
    return {name: each for name, each in tensors.items() if each.untyped_storage().data_ptr() == memory}


def taken(now: Mapping[str, Any], before: Mapping[str, Tensor], stepped: Tensor) -> Tensor | None:
    """Return what the loop has made of a step's result: of the variables that held the last state, the one that is new."""
    new = [now[name] for name, old in before.items() if isinstance(now.get(name), Tensor) and now[name] is not old]
    return stepped if any(each is stepped for each in new) else new[0] if new else None


def class_of(value: Any, *rest: Any) -> Any:
    """Stand in for `type`: the class of a scheduler that stands in for another is the other's."""
    return type(value, *rest) if rest else value.__class__


def with_counting(plain: type) -> dict[str, Any]:
    """Return copies of the methods of a pipeline's class that step in a loop, in which `enumerate` is `counting`.

    Nothing else is touched: the copies have globals of their own.
    """
    methods = {name: method for base in reversed(plain.__mro__) for name, method in vars(base).items()}
    return {name: _counted(method) for name, method in methods.items() if _loops(method)}


@cache
def uses_time_after_step(plain: type) -> bool:
    """Return whether the loop of a pipeline's call uses a step's timestep once it has taken the step, callbacks aside."""
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(plain.__call__)))
        with PARSING:
            tree = ast.parse(source)
    except (OSError, TypeError, SyntaxError):
        return False
    return any(_names_after_step(loop) for loop in ast.walk(tree) if isinstance(loop, ast.For))


def _names_after_step(loop: ast.For) -> bool:
    target = loop.target.elts[-1] if isinstance(loop.target, ast.Tuple) else loop.target
    if not isinstance(target, ast.Name):
        return False
    stepped = False
    for statement in loop.body:
        if stepped and "callback" not in ast.unparse(statement):
            names = (node.id for node in ast.walk(statement) if isinstance(node, ast.Name))
            if target.id in names:
                return True
        stepped = stepped or "scheduler.step(" in ast.unparse(statement)
    return False


def _loops(method: Any) -> bool:
    method = inspect.unwrap(method) if isinstance(method, FunctionType) else None
    return isinstance(method, FunctionType) and {"enumerate", "step"} <= set(method.__code__.co_names)


def _counted(method: FunctionType) -> FunctionType:
    """Copy a function, through its decorators: they hold what they wrap in their closures."""
    inner = getattr(method, "__wrapped__", None)
    scope, closure = method.__globals__, method.__closure__
    if inner is None:
        scope = {**scope, "enumerate": counting, "type": class_of}
    else:
        closure = tuple(CellType(_counted(inner)) if _holds(cell, inner) else cell for cell in closure or ())
    copied = FunctionType(method.__code__, scope, method.__name__, method.__defaults__, closure)
    copied.__dict__.update(method.__dict__)
    copied.__kwdefaults__, copied.__doc__, copied.__module__ = method.__kwdefaults__, method.__doc__, method.__module__
    copied.__qualname__ = method.__qualname__
    return copied


def _holds(cell: CellType, value: Any) -> bool:
    try:
        return cell.cell_contents is value
    except ValueError:  # an empty cell
        return False
