"""Checks and their findings: what a check is, what it says, and how a part of it that fails is noted and passed over."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tests.gpu.machine import Machine

Status = Literal["passed", "failed", "out of time", "not run: out of time", "not here"]
"""A check is out of time when its own budget ends it, not run when no time is left of the whole, and not here where it needs
a package that this machine lacks."""


class NotHereError(Exception):
    """Something that a check needs is not on this machine."""


@dataclass(frozen=True)
class CheckFinding:
    """Something that a check found.

    Attributes:
        what: of what, such as "ropa: overhead of a round".
        value: a number, a word, or True and False.
        unit: of a number.
        wanted: what it must be, in words; "" where nothing is wanted.
        holds: whether it is so; None where nothing is wanted.
        error: the error that came instead of a value.
    """

    what: str
    value: Any = None
    unit: str = ""
    wanted: str = ""
    holds: bool | None = None
    error: str = ""


Findings = Iterator[CheckFinding]


@dataclass(frozen=True)
class GpuCheck:
    """A check of one thing that only a GPU can show.

    Attributes:
        name: such as sizes.flux; what comes before the dot is its group.
        title: what is checked, in a few words.
        budget_s: seconds after which it is ended.
        run: yields findings as they come, so that those before its end are kept.
    """

    name: str
    title: str
    budget_s: float
    run: Callable[[Machine], Findings]


def attempt(what: str, work: Callable[[], Iterable[CheckFinding]]) -> Findings:
    """Yield the findings of a part of a check; its error is a finding too, and the check goes on."""
    try:
        yield from work()
    except NotHereError as missing:
        yield CheckFinding(what, f"not here: {missing}")
    except Exception as error:
        traceback.print_exception(error)
        yield CheckFinding(what, holds=False, error=f"{type(error).__name__}: {error}"[:500])


def equal(what: str, holds: bool, value: Any = None) -> CheckFinding:
    """Return the finding that two things have the same bits, or not."""
    return CheckFinding(what, ("equal" if holds else "not equal") if value is None else value, "", "equal bits", holds)


def at_most(what: str, value: float, limit: float, unit: str = "") -> CheckFinding:
    """Return the finding that a number stays within a limit, or does not."""
    return CheckFinding(what, value, unit, f"at most {limit:g}", value <= limit)
