"""Plugins by name: genrun's own from a table, those of other packages from an entry point group."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any


class UnknownNameError(LookupError):
    """Nothing of that name is registered; the message names the nearest and lists all."""


@dataclass(frozen=True)
class Registry:
    """Finds plugins of one kind; a plugin is imported when it is asked for, and not before.

    Attributes:
        what: the kind in messages, such as "solver".
        group: the entry point group in which other packages publish theirs, such as "genrun.solvers".
        package: where genrun's own live.
        own: name -> "module:attribute" in `package`, in the order in which they are listed.
        hint: what a message says of names that are none of these.
    """

    what: str
    group: str
    package: str
    own: Mapping[str, str]
    hint: str = ""

    def names(self) -> tuple[str, ...]:
        """List every name once, genrun's own first."""
        return tuple(dict.fromkeys((*self.own, *self._foreign())))

    def get(self, name: str) -> Any:
        """Import a plugin. A name of genrun's own hides the same name of another package.

        Raises:
            UnknownNameError: there is no such plugin.
        """
        if name in self.own:
            module, _, attribute = self.own[name].partition(":")
            return getattr(import_module(f"{self.package}.{module}"), attribute)
        foreign = self._foreign()
        if name not in foreign:
            known = self.names()
            message = (
                f"unknown {self.what} {name!r}.{did_you_mean(name, known)} There are: {', '.join(known)}{self.hint}."
            )
            raise UnknownNameError(message)
        return foreign[name].load()

    def _foreign(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in published(self.group)}


def make(kind: Callable[..., Any], name: str, options: Mapping[str, Any]) -> Any:
    """Return a plugin that is a dataclass, with options.

    Raises:
        TypeError: it has no such option; the message names the nearest and lists all.
        ValueError: it refuses a value.
    """
    # What other packages publish need not be a dataclass.
    known = tuple(getattr(kind, "__dataclass_fields__", options))
    given = {option: value for option, value in options.items() if option in known}
    foreign = [option for option in options if option not in known]
    if not foreign:
        try:
            return kind(**given)
        except ValueError:
            told = refusals(kind, given)
            if len(told) < 2:
                raise
        raise ValueError("; ".join(told))
    problems = [f"{name} has no option {option!r}.{did_you_mean(option, known)}" for option in foreign]
    there_are = f"There are: {', '.join(known)}." if known else "It has none."
    wrong = [f"{each.rstrip('.')}." for each in refusals(kind, given)]
    raise TypeError(" ".join([*problems, there_are, *wrong]))


def refusals(kind: Callable[..., Any], given: Mapping[str, Any], wrong: Collection[str] = ()) -> list[str]:
    """Return every "field: why" for which a dataclass refuses values, of which it names one at a time.

    Args:
        kind: the dataclass.
        given: values in the types of its fields.
        wrong: names of those that were wrong already. What is said of another beside one of them may come of that.
    """
    values, dropped, found = dict(given), set(wrong), list[str]()
    while True:
        try:
            kind(**values)
        except TypeError:
            # One that has no default was dropped.
            return found
        except ValueError as error:
            name, _, why = str(error).partition(": ")
            if dropped.isdisjoint(re.findall(r"\w+", why)):
                found.append(str(error))
            if name not in values:
                return found
            del values[name]
            dropped.add(name)
        else:
            return found


@cache
def published(group: str) -> tuple[EntryPoint, ...]:
    """Return what the installed packages publish under an entry point group."""
    return tuple(_all_published().select(group=group))


@cache
def _all_published() -> Any:
    # Every installed package has to be read for it: a tenth of a second, once in a process.
    return entry_points()


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'window'?", or "" when nothing known is close to `name`."""
    by_lower = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""
