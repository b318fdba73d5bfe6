"""Shared by the functions of `genrun.api`: arguments are checked by their annotations, and a listener hears the work.

The listener is told messages, results, progress, and the run that a submission opened.
"""

from __future__ import annotations

import builtins
import functools
import inspect
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from genrun.runner.progress import Display, Progress
    from genrun.runner.store.folder import RunFolder

P = ParamSpec("P")
R = TypeVar("R")

KINDS = {
    "AnyJob": "a job is a file's name, YAML text (with a line break), or a mapping such as "
    "{'model': 'demo-image', 'prompts': ['a kite']}",
    "AnyRun": "a run is its folder, its job's name, a Run, or None for the last one",
    "JobName": "job is the name of one, or None for all",
}
"""Annotation -> what is said of an argument that is none."""

WORDS = {str: "a text", bool: "True or False", int: "a whole number", float: "a number", NoneType: "None"}
NUMBERS: Mapping[Any, type] = {int: Integral, float: Real}
"""Annotation -> what counts, which numbers of numpy are, and bool is not."""


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Have a function refuse arguments that are not what its annotations say, in words, before it does anything.

    Lists may be anything that can be gone through, but not a text or a mapping. Of classes that are imported for type
    checkers alone, the name counts.

    Raises:
        TypeError: on the call, naming the argument.
    """

    @functools.wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> R:
        signature, kinds = _kinds_of(function)
        try:
            given = signature.bind_partial(*args, **named)
        except TypeError:
            # Of arguments that there are not Python tells best, as of those that are missing.
            return function(*args, **named)
        for name in given.arguments.keys() & kinds.keys():
            annotation, kind = kinds[name]
            value = given.arguments[name]
            if "Sequence[" in annotation and isinstance(value, Iterable) and not isinstance(value, Sequence | Mapping):
                # Generators, sets and arrays: a list may be gone through again, or be asked whether it is empty.
                value = given.arguments[name] = list(value)
            is_many = signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
            for each in value if is_many else [value]:
                if not _fits(each, kind):
                    raise TypeError(_refusal(name, annotation, kind, each))
        return function(*given.args, **given.kwargs)

    return call


@functools.cache
def _kinds_of(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, tuple[str, Any]]]:
    """Return a function's signature, and its annotations as text and as types, by argument."""
    signature = inspect.signature(function)
    hints = get_type_hints(function, localns=_Names(getattr(function, "__globals__", {})))
    texts = {name: str(parameter.annotation) for name, parameter in signature.parameters.items() if name in hints}
    return signature, {name: (text, hints[name]) for name, text in texts.items()}


class _Names(dict[str, Any]):
    """Names of a module, of builtins, and of classes that type checkers alone know."""

    def __missing__(self, name: str) -> Any:
        return getattr(builtins, name, None) or _Named(name, (), {})


class _Named(type):
    """Class of classes that have as instances whatever is of a class of their name, which need not be imported."""

    def __instancecheck__(cls, instance: object) -> bool:
        return any(each.__name__ == cls.__name__ for each in type(instance).__mro__)


def _fits(value: Any, kind: Any) -> bool:
    origin, args = get_origin(kind) or kind, get_args(kind)
    if origin is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in args)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_fits(each, args[1]) for each in value.values())
    if origin is Sequence:
        is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        return is_list and all(_fits(each, args[0]) for each in value)
    return isinstance(value, NUMBERS.get(origin, origin)) and (origin is bool or not isinstance(value, bool))


def _refusal(name: str, annotation: str, kind: Any, value: object) -> str:
    if isinstance(value, str | os.PathLike) and (get_origin(kind) is Sequence or "Sequence[" in annotation):
        return f"{name} is a list, such as [{os.fspath(value)!r}]; got one text."
    said = next((KINDS[part] for part in annotation.split(" | ") if part in KINDS), f"{name} is {_words(kind)}")
    is_shown = isinstance(value, Collection) and not isinstance(value, bytes)
    got = f"{value!r:.80}" if is_shown else type(value).__name__
    return f"{said}; got {got}."


def _words(kind: Any, *, plural: bool = False) -> str:
    """Say what a type stands for."""
    origin, args = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, UnionType):
        # None first: what follows it is what is usually given.
        words = [_words(each, plural=plural) for each in sorted(args, key=lambda each: each is not NoneType)]
        return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))
    if origin is Sequence:
        return f"{'lists' if plural else 'a list'} of {_words(args[0], plural=True)}"
    if origin in (Mapping, os.PathLike):
        one = "mapping" if origin is Mapping else "path"
        return f"{one}s" if plural else f"a {one}"
    one = WORDS.get(origin, f"a {origin.__name__}")
    return f"{one.removeprefix('a ')}s" if plural and origin in WORDS else one.removeprefix("a ") if plural else one


NOTEBOOK_INTERVAL_S = 2.0
"""Seconds between two lines of progress in a notebook: who sits before it waits."""


class Opened(Protocol):
    """A run that a submission goes on with, as `Submission` describes it."""

    @property
    def folder(self) -> RunFolder:
        """The run."""
        ...

    @property
    def jobs(self) -> Sequence[str]:
        """Names of its jobs in a queue; further ones are added as they are put there."""
        ...

    @property
    def taken(self) -> Mapping[str, int]:
        """Numbers of items that were taken over and set back."""
        ...


class Silent:
    """A display that shows nothing."""

    def show(self, progress: Progress) -> None:
        """Show nothing."""

    def close(self, progress: Progress) -> None:
        """Show nothing."""


class Listener:
    """Hear an operation, and do nothing about it; override what is of interest.

    class Talk(genrun.api.Listener):
        def say(self, text):
            print(text)

    genrun.submit("jobs/demo.yaml", listener=Talk())
    """

    def say(self, text: str) -> None:
        """Hear a message: a warning, or what is being done and why."""

    def result(self, text: str) -> None:
        """Hear a result as soon as there is one: the file that was decoded, the name of the job that was stopped."""

    def progress(self, done: int, total: int) -> None:
        """Hear how many items were looked at, of how many."""

    def display(self) -> Display:
        """Return what shows how far a run is; called whenever the work on it begins to be followed."""
        return Silent()

    def opened(self, submission: Opened) -> None:
        """Hear which run a submission goes on with, before workers are started; errors after that leave the run there."""


class ConsoleListener(Listener):
    """Print what an operation says, its results, and how far it is: for notebooks and scripts."""

    def say(self, text: str) -> None:
        """Print a message."""
        print(text, flush=True)

    def result(self, text: str) -> None:
        """Print a result."""
        print(text, flush=True)

    def display(self) -> Display:
        """Return what prints a line whenever items were finished, at most one every two seconds."""
        from genrun.runner.progress import PlainDisplay

        return PlainDisplay(self.say, NOTEBOOK_INTERVAL_S)


QUIET = Listener()
"""The default: nobody listens."""
